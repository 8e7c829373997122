;;; rlm-result.el --- The result of a block of an Org document -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A block that runs has a placeholder below it; the answer grows under
;; that line, and at the end the result takes the place of both.
;;
;; What is put into the document is made harmless first: a heading or
;; the end of a drawer in an answer would keep Org from finding the
;; result again.  A result that was not completed is never one that
;; `:cache yes' believes.

;;; Code:

(require 'rlm-block)
(require 'rlm-answer)
(require 'rlm-apply)
(require 'ob)

(defvar rlm--babel-running nil
  "List of (MARKER . ID) of the blocks that are running, ID a run's.")

;;;; Where it is put

(defun rlm--babel-begin (params)
  "Note that the block at point is running; return its marker.
PARAMS are its header arguments."
  (let ((marker (copy-marker org-babel-current-src-block-location))
        (buffer (current-buffer)))
    (setq rlm--babel-running (seq-filter (lambda (pair) (marker-buffer (car pair)))
                                         rlm--babel-running))
    (when (assoc marker rlm--babel-running)
      (user-error "This block is running; M-x rlm-cancel ends it"))
    (push (cons marker nil) rlm--babel-running)
    (when (rlm--babel-yes-p params :cache)
      ;; Org is about to write the placeholder as a result to believe.
      (run-at-time 0 nil (lambda ()
                           (when (and (buffer-live-p buffer) (assoc marker rlm--babel-running))
                             (rlm--guarded #'rlm--babel-insert marker
                                           (rlm--babel-placeholder marker) nil t)))))
    marker))

(defvar rlm--babel-beginning nil
  "The marker of the block of which Org has not yet put in the placeholder.")

(defun rlm--babel-while-beginning (params function)
  "Call FUNCTION with the marker of the block at point, which begins to run.
If it fails, or the user quits, the block does not run.  PARAMS are its
header arguments; return what FUNCTION does."
  (let* ((marker (rlm--babel-begin params))
         (rlm--babel-beginning marker)
         begun)
    (unwind-protect
        (prog1 (funcall function marker)
          (setq begun t))
      (unless begun
        (rlm--babel-end marker)))))

(defun rlm--babel-placeholder (marker)
  "Return what stands for the result of the block at MARKER while it runs."
  (let ((id (cdr (assoc marker rlm--babel-running))))
    (format "[rlm%s running; M-x rlm-cancel ends it]"
            (if id (concat " " (substring id 0 8)) ""))))

(defun rlm--babel-end (marker)
  "Note that the block at MARKER is not running any more."
  (setq rlm--babel-running (assoc-delete-all marker rlm--babel-running)))

;;;; While it grows

(defun rlm--babel-stream (run marker params)
  "Let the answer of RUN grow below the block at MARKER, if PARAMS allow."
  (when (rlm--babel-streams-p params)
    (let (stream shown)
      (rlm--run-observe
       run
       (lambda (_run event data)
         (pcase event
           ('delta
            (unless (and stream (rlm--babel-stream-there-p stream))
              (setq stream (rlm--babel-stream-open marker)
                    shown nil))
            (when stream
              (setq shown (rlm--stream-show stream shown (car data) (cdr data)))))
           ('ended
            (when stream
              (rlm--stream-stop stream)))))))))

(defun rlm--babel-streams-p (params)
  "Return non-nil if PARAMS want a text that can grow in a drawer."
  (let ((result-params (cdr (assq :result-params params))))
    (and (member "drawer" result-params)
         (not (equal "no" (format "%s" (cdr (assq :stream params)))))
         (null (seq-intersection '("table" "vector" "list" "verbatim" "scalar" "code" "html"
                                   "latex" "file" "raw" "org" "link" "graphics")
                                 result-params)))))

(defun rlm--babel-stream-open (marker)
  "Return a stream below the placeholder of the block at MARKER.
Nil if that is gone."
  (when (marker-buffer marker)
    (with-current-buffer (marker-buffer marker)
      (org-with-wide-buffer
       (goto-char marker)
       (when-let ((place (org-babel-where-is-src-block-result)))
         (goto-char place)
         (forward-line 1)
         (when (looking-at-p "[ \t]*:results:")
           (forward-line 1)
           (when (looking-at-p (regexp-quote (rlm--babel-placeholder marker)))
             (forward-line 1)
             ;; The line that grows must not run into the end of the drawer.
             (insert "\n")
             (rlm--stream-open (current-buffer) (1- (point)) #'rlm--babel-stream-there-p))))))))

(defun rlm--babel-stream-there-p (stream)
  "Return non-nil if STREAM still stands below its placeholder."
  (when-let ((buffer (rlm--stream-buffer stream)))
    (with-current-buffer buffer
      (org-with-wide-buffer
       (goto-char (rlm--stream-beg stream))
       (and (bolp)
            (zerop (forward-line -1))
            (looking-at-p "\\[rlm .*running; "))))))

;;;; When it is there

(defun rlm--babel-insert (marker result failed &optional quietly)
  "Put RESULT in its place below the block at MARKER.
If FAILED, or QUIETLY, it is not one that `:cache' believes."
  (cond
   ((equal marker rlm--babel-beginning)
    ;; It has ended at once; Org's placeholder is yet to come.
    (run-at-time 0 nil #'rlm--guarded #'rlm--babel-insert marker result failed quietly))
   ((marker-buffer marker)
    (with-current-buffer (marker-buffer marker)
      (org-with-wide-buffer
       (goto-char marker)
       (when-let ((info (org-babel-get-src-block-info)))
         (let* ((params (nth 2 info))
                (result-params (cdr (assq :result-params params)))
                (file (and (not failed) (not quietly) (rlm--babel-param params :file)))
                (org-confirm-babel-evaluate nil))
           (when (or failed quietly)
             (rlm--babel-unhash info))
           (org-babel-insert-result
            (if file (rlm--babel-write file result) result)
            (cond (file (cons "file" result-params))
                  ((or failed quietly) (seq-difference result-params '("table" "file" "list")))
                  (t result-params))
            info
            (and (not failed) (not quietly) (rlm--babel-yes-p params :cache)
                 (org-babel-sha1-hash info :eval))
            (nth 0 info))
           (unless quietly
             (run-hooks 'org-babel-after-execute-hook)))))))))

(defun rlm--babel-unhash (info)
  "Take the hash from the result of the block at point, that INFO tells of.
`org-babel-insert-result' leaves one that is there."
  (when-let ((place (org-babel-where-is-src-block-result nil info)))
    (save-excursion
      (goto-char place)
      (when (re-search-forward "\\(\\[[^]\n]*\\]\\):" (line-end-position) t)
        (replace-match "" t t nil 1)))))

(defun rlm--babel-write (file result)
  "Write RESULT to FILE; return FILE."
  (with-temp-file file
    (insert (if (stringp result) result
              (orgtbl-to-tsv result nil))))
  file)

;;;; What it is

(defconst rlm--babel-table-schema
  '(:type "object" :required ["columns" "rows"] :additionalProperties :json-false
    :properties (:columns (:type "array" :items (:type "string"))
                 :rows (:type "array"
                        :items (:type "array"
                                :items (:type ["string" "number" "boolean" "null"])))))
  "What an answer must be to become a table.")

(defun rlm--babel-table-p (params)
  "Return non-nil if PARAMS want a table."
  (and (seq-intersection '("table" "vector") (cdr (assq :result-params params))) t))

(defun rlm--babel-table (answer)
  "Return ANSWER, JSON of columns and rows, as an Org table."
  (let* ((parsed (json-parse-string answer :object-type 'plist :array-type 'list
                                    :null-object "" :false-object "false"))
         (cell (lambda (value)
                 (cond ((eq value t) "true")
                       ((stringp value) (string-replace "|" "\\vert{}" (string-replace "\n" " " value)))
                       (t value)))))
    (append (list (mapcar cell (plist-get parsed :columns)) 'hline)
            (mapcar (lambda (row) (mapcar cell row)) (plist-get parsed :rows)))))

(defun rlm--babel-result (run params)
  "Return what is put into the document of RUN, given PARAMS."
  (let ((answer (or (rlm-run-answer run) ""))
        (result-params (cdr (assq :result-params params))))
    (cond
     ((or (rlm-run-error run) (string-empty-p answer))
      (concat "Failed: " (rlm--org-plain
                          (rlm--one-line (if (rlm-run-error run)
                                             (rlm-error-text (rlm-run-error run))
                                           (or (rlm-run-why run) "no answer"))
                                         1000))))
     ((rlm--babel-table-p params) (rlm--babel-table answer))
     ((seq-intersection '("verbatim" "scalar" "code" "html" "latex") result-params)
      (string-trim answer))
     (t (concat (rlm--org-text answer) (rlm--babel-sources run params))))))

(defun rlm--babel-sources (run params)
  "Return the citations of RUN as lines, if PARAMS want them."
  (let ((lines (and (not (equal "no" (format "%s" (cdr (assq :sources params)))))
                    (cddr (rlm--citation-lines run)))))
    (if lines
        (concat "\n\n" (string-join lines "\n"))
      "")))

(defun rlm--babel-failed-p (run)
  "Return non-nil if RUN has no answer to believe."
  (or (not (eq 'ended (rlm-run-state run)))
      (not (equal "answered" (rlm-run-outcome run)))))

(provide 'rlm-result)
;;; rlm-result.el ends here
