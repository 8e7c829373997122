;;; ob-rlm.el --- Questions and cells in Org documents -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Blocks of the language rlm are questions, those of rlm-python are
;; cells that run in a session's cage.  They run while you go on
;; writing; the result appears when it is there.  Where Org needs a
;; value at once (exports, references, calls, inline blocks) they wait.
;;
;; What is put into the document is made harmless first: a heading or
;; the end of a drawer in an answer would keep Org from finding the
;; result again.  A result that was not completed is never one that
;; `:cache yes' believes.

;;; Code:

(require 'rlm-again)
(require 'rlm-apply)
(require 'rlm-cell)
(require 'ob)

(declare-function org-element-type "org-element" (element))
(declare-function org-element-context "org-element" (&optional element))
(declare-function project-root "project" (project))

(defvar org-babel-default-header-args:rlm
  '((:results . "drawer replace") (:exports . "both") (:eval . "no-export") (:session . "none"))
  "Default header arguments of rlm blocks.")

(defconst org-babel-header-args:rlm
  '((context . :any) (strategy . ((auto direct rlm map quote))) (model . :any)
    (sub-model . :any) (turns . :any) (seconds . :any) (fresh . ((no yes)))
    (async . ((yes no))) (trace . ((no yes))) (sources . ((yes no))))
  "Header arguments that rlm blocks have of their own.")

(defvar org-babel-default-header-args:rlm-python
  '((:results . "output verbatim replace") (:exports . "both") (:eval . "no-export")
    (:session . "org"))
  "Default header arguments of rlm-python blocks.")

(defconst org-babel-header-args:rlm-python
  '((context . :any) (async . ((yes no))))
  "Header arguments that rlm-python blocks have of their own.")

(defvar rlm--babel-running nil
  "List of (MARKER . ID) of the blocks that are running, ID a run's.")

;;;; What a block says

(defun rlm--babel-param (params key)
  "Return the value of KEY in PARAMS, a string, or nil if it is empty or none."
  (let ((value (cdr (assq key params))))
    (when (and value (not (member (format "%s" value) '("" "none" "no" "nil"))))
      (format "%s" value))))

(defun rlm--babel-yes-p (params key)
  "Return non-nil if KEY is yes in PARAMS."
  (equal "yes" (rlm--babel-param params key)))

(defun rlm--babel-context (params)
  "Return the sources that PARAMS name.
That is `buffer', `buffer:NAME', `file:PATH', `project', a file
that exists, or the name of a context that the daemon has; else the
subtree, without its source blocks and their results."
  (pcase (rlm--babel-param params :context)
    ((or 'nil "subtree") (list (rlm--babel-subtree)))
    ("buffer" (list (rlm-source-from (current-buffer))))
    ("project"
     (require 'project)
     (rlm--sources-of-files (list (project-root (project-current t)))))
    ((rx bos "buffer:" (let name (+ anything)))
     (list (rlm-source-from (or (get-buffer name)
                                (user-error "There is no buffer %s" name)))))
    ((rx bos "file:" (let path (+ anything)))
     (rlm--babel-file path))
    ((and path (guard (file-exists-p path))) (rlm--babel-file path))
    (name (list (rlm--source-from-context name)))))

(defun rlm--babel-file (path)
  "Return the sources for PATH."
  (let ((path (expand-file-name path)))
    (unless (file-exists-p path)
      (user-error "There is no file %s" path))
    (rlm--sources-of-files (list path))))

(defun rlm--babel-subtree ()
  "Return the source for the subtree at point, without blocks and results.
So the text is the same when the block runs again."
  (save-excursion
    (save-restriction
      (widen)
      (let ((label (if (org-before-first-heading-p)
                       (buffer-name)
                     (org-no-properties (org-get-heading t t t t)))))
        (unless (org-before-first-heading-p)
          (org-narrow-to-subtree))
        (rlm--source-from-string
         (rlm--babel-without-blocks (buffer-substring-no-properties (point-min) (point-max)))
         label)))))

(defun rlm--babel-without-blocks (text)
  "Return TEXT without source blocks and results."
  (let ((case-fold-search t))
    (with-temp-buffer
      (insert text)
      (delay-mode-hooks (org-mode))
      (goto-char (point-min))
      (while (re-search-forward org-babel-result-regexp nil t)
        (let ((beg (line-beginning-position)))
          (forward-line 1)
          (delete-region beg (max (point) (min (point-max) (org-babel-result-end))))))
      (goto-char (point-min))
      (while (re-search-forward "^[ \t]*#\\+begin_src \\(?:.*\n\\)*?[ \t]*#\\+end_src.*\n?" nil t)
        (replace-match ""))
      (buffer-string))))

(defun rlm--babel-session (params)
  "Return the session that PARAMS name; a new one where variables need it."
  (or (rlm--babel-param params :session)
      (when (org-babel--get-vars params)
        (rlm--session-name))))

(defun rlm--babel-assignments (params)
  "Return Python that gives the variables of PARAMS their values.
A table is a list of lists."
  (mapconcat
   (lambda (pair)
     (let ((name (format "%s" (car pair))))
       (unless (string-match-p "\\`[a-zA-Z_][a-zA-Z0-9_]*\\'" name)
         (user-error "Not a name in Python: %s" name))
       (format "%s = __import__('json').loads(%s)" name
               (rlm--babel-python-string
                (json-serialize (rlm--babel-json (cdr pair)) :null-object :null)))))
   (org-babel--get-vars params) "\n"))

(defun rlm--babel-python-string (json)
  "Return JSON, as `json-serialize' made it, as a Python string."
  (let ((text (if (multibyte-string-p json) json (decode-coding-string json 'utf-8))))
    (concat "'" (replace-regexp-in-string
                 "['\\\\\n]" (lambda (char)
                               (if (equal char "\n") "\\n" (concat "\\" char)))
                 text t t)
            "'")))

(defun rlm--babel-json (value)
  "Return VALUE, of an Org variable, such that it can be serialized."
  (cond ((eq value 'hline) :null)
        ((null value) :null)
        ((stringp value) (substring-no-properties value))
        ((numberp value) value)
        ((listp value) (vconcat (mapcar #'rlm--babel-json value)))
        (t (format "%s" value))))

;;;; When

(defun rlm--babel-async-p (lang body params)
  "Return non-nil if the block of LANG with BODY and PARAMS need not be waited for."
  (and (not (equal "no" (format "%s" (cdr (assq :async params)))))
       (not (bound-and-true-p org-export-current-backend))
       (not (bound-and-true-p org-babel-exp-reference-buffer))
       (null (seq-intersection '("none" "silent" "append" "prepend")
                               (cdr (assq :result-params params))))
       (null (rlm--babel-param params :wrap))
       org-babel-current-src-block-location
       (not (memq (org-element-type (org-element-context))
                  '(babel-call inline-babel-call inline-src-block)))
       ;; Else another block asks for our value.
       (org-with-wide-buffer
        (goto-char org-babel-current-src-block-location)
        (let ((info (org-babel-get-src-block-info 'light)))
          (and (equal lang (car info))
               (equal (string-trim (nth 1 info)) (string-trim body)))))))

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

(defun rlm--babel-placeholder (marker)
  "Return what stands for the result of the block at MARKER while it runs."
  (let ((id (cdr (assoc marker rlm--babel-running))))
    (format "[rlm%s running; M-x rlm-cancel ends it]"
            (if id (concat " " (substring id 0 8)) ""))))

(defun rlm--babel-end (marker)
  "Note that the block at MARKER is not running any more."
  (setq rlm--babel-running (assoc-delete-all marker rlm--babel-running)))

(defun rlm--babel-insert (marker result failed &optional quietly)
  "Put RESULT in its place below the block at MARKER.
If FAILED, or QUIETLY, it is not one that `:cache' believes."
  (when (marker-buffer marker)
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
             (run-hooks 'org-babel-after-execute-hook))))))))

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

;;;; Questions

(defun rlm--babel-digest (params)
  "Return a digest of the texts that PARAMS name, for the hash of `:cache'."
  (mapconcat
   (lambda (source)
     (cond ((rlm-source-paths source)
            (format "%S" (mapcar (lambda (path)
                                   (let ((attributes (file-attributes path)))
                                     (list path (file-attribute-size attributes)
                                           (file-attribute-modification-time attributes))))
                                 (rlm-source-paths source))))
           ((rlm-source-stored source)
            (plist-get (plist-get (rlm-call-sync "context/info"
                                                 (list :name (rlm-source-name source)
                                                       :documents_limit 0))
                                  :context)
                       :digest))
           (t (secure-hash 'sha1 (encode-coding-string (rlm--source-string source)
                                                       'utf-8-emacs)))))
   (rlm--babel-context params) " "))

(defun org-babel-expand-body:rlm (body params)
  "Return BODY, with the digest of its texts if PARAMS say that results are kept."
  (if (rlm--babel-yes-p params :cache)
      (format "%s\n[%s]" body (rlm--babel-digest params))
    body))

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

(defun rlm--babel-ask (body params session)
  "Ask BODY as PARAMS say, in SESSION; return the run."
  (let* ((list-of (lambda (key) (when-let ((value (rlm--babel-param params key)))
                                  (split-string value))))
         (number (lambda (key) (when-let ((value (rlm--babel-param params key)))
                                 (string-to-number value))))
         (limits (append (when-let ((turns (funcall number :turns))) (list :turns turns))
                         (when-let ((seconds (funcall number :seconds))) (list :seconds seconds))))
         (run (rlm-query (string-trim (org-no-properties body))
                         (rlm--babel-context params)
                         :strategy (or (rlm--babel-param params :strategy)
                                       (and (org-babel--get-vars params) "rlm"))
                         :root (funcall list-of :model)
                         :sub (funcall list-of :sub-model)
                         :limits limits
                         :session session
                         :schema (and (rlm--babel-table-p params) rlm--babel-table-schema)
                         :fresh (rlm--babel-yes-p params :fresh))))
    (when (rlm--babel-yes-p params :trace)
      (require 'rlm-trace)
      (save-selected-window (rlm-trace run)))
    run))

;;;###autoload
(defun org-babel-execute:rlm (body params)
  "Ask the question BODY as PARAMS say.
Return the answer, or what stands for it until it is there."
  (when (string-blank-p body)
    (user-error "There is no question"))
  (let* ((session (rlm--babel-session params))
         (async (rlm--babel-async-p "rlm" body params))
         (vars (rlm--babel-assignments params))
         (ask (lambda () (rlm--babel-ask body params session))))
    (unless (string-empty-p vars)
      (rlm--babel-give vars session))
    (if async
        (let ((marker (rlm--babel-begin params)))
          (condition-case err
              (let ((run (funcall ask)))
                (setf (cdr (assoc marker rlm--babel-running)) (rlm-run-id run))
                (rlm--run-when-over run (lambda (run) (rlm--babel-over run marker params)))
                (rlm--babel-placeholder marker))
            (error (rlm--babel-end marker)
                   (signal (car err) (cdr err)))))
      (let ((run (funcall ask)))
        (rlm--babel-await run)
        (when (rlm-run-error run)
          (user-error "%s" (rlm-error-text (rlm-run-error run))))
        (rlm--babel-result run params)))))

(defun rlm--babel-over (run marker params)
  "RUN, of the block at MARKER with PARAMS, is over."
  (rlm--babel-end marker)
  ;; A table that cannot be read is a failure to be told, not a signal.
  (let ((result (condition-case err
                    (rlm--babel-result run params)
                  (error (concat "Failed: " (error-message-string err))))))
    (rlm--babel-insert marker result (or (rlm--babel-failed-p run)
                                         (and (stringp result)
                                              (string-prefix-p "Failed: " result))))))

(defun rlm--babel-await (run)
  "Wait until RUN is over; quitting cancels it."
  (let (over)
    (unwind-protect
        (setq over (rlm-wait run))
      (unless over
        (rlm--guarded #'rlm-run-cancel run "nobody waits for it any more")))))

(defun rlm--babel-give (assignments session)
  "Run ASSIGNMENTS, Python, in SESSION, and wait for it."
  (let ((result (rlm-call-sync "repl/execute"
                               (list :code assignments :run_id (rlm--new-id)
                                     :contexts [] :session session))))
    (unless (rlm--true-p (plist-get result :ok))
      (user-error "The variables could not be set: %s" (plist-get result :error)))))

;;;; Cells

(defun org-babel-expand-body:rlm-python (body params)
  "Return BODY after what gives the variables of PARAMS their values."
  (let ((vars (rlm--babel-assignments params)))
    (if (string-empty-p vars) body (concat vars "\n" body))))

(defun rlm--babel-load (sources names success failure)
  "Have SOURCES loaded; call SUCCESS with all names, NAMES being the first ones.
FAILURE is called with an error."
  (if (null sources)
      (funcall success (reverse names))
    (rlm--when-ready (rlm--client)
                     (lambda ()
                       (rlm--source-load (car sources) (rlm-socket-path)
                                         (lambda (name)
                                           (rlm--babel-load (cdr sources) (cons name names)
                                                            success failure))
                                         failure))
                     failure)))

;;;###autoload
(defun org-babel-execute:rlm-python (body params)
  "Run BODY, Python, in the session of PARAMS.
Return its output, or what stands for it until it is there."
  (let* ((code (org-babel-expand-body:rlm-python body params))
         (session (or (rlm--babel-param params :session) "org"))
         (sources (and (rlm--babel-param params :context) (rlm--babel-context params)))
         (async (rlm--babel-async-p "rlm-python" body params))
         (marker (and async (rlm--babel-begin params)))
         (outcome nil)
         (done (lambda (text failed)
                 (setq outcome (list text failed))
                 (when async
                   (rlm--babel-end marker)
                   (rlm--babel-insert marker text failed))))
         (failure (lambda (error) (funcall done (concat "Failed: " (rlm-error-text error)) t))))
    (rlm--babel-load
     sources nil
     (lambda (names)
       (rlm--cell-execute code session names nil
                          (lambda (result)
                            (funcall done (rlm--cell-result-text result)
                                     (not (rlm--true-p (plist-get result :ok)))))
                          failure))
     failure)
    (cond (async (rlm--babel-placeholder marker))
          (t (while (null outcome)
               (accept-process-output nil 0.02))
             (when (cadr outcome)
               (user-error "%s" (car outcome)))
             (car outcome)))))

(add-to-list 'org-src-lang-modes '("rlm" . text))
(add-to-list 'org-src-lang-modes '("rlm-python" . python))

(provide 'ob-rlm)
;;; ob-rlm.el ends here
