;;; rlm-apply.el --- Put an answer where it is wanted -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; An answer can be copied, inserted at point, or proposed in the place
;; of the text that it is about.  A proposal lies over that text until
;; it is accepted or rejected; the text itself is not touched before.
;; What was inserted remembers its run, so that it can be removed again
;; in one go, whatever else was edited since.

;;; Code:

(require 'rlm-again)
(require 'text-property-search)

(defface rlm-proposal '((t :inherit diff-added :extend t))
  "Face of an answer that is proposed in the place of a text."
  :group 'rlm)

(defun rlm--answered-run ()
  "Return the run of the current buffer, or one of those that have an answer."
  (let ((run (or rlm--run
                 (rlm--read-run "Answer of: "
                                (seq-filter #'rlm-run-answer (rlm--known-runs))))))
    (when (string-empty-p (or (rlm-run-answer run) ""))
      (user-error "There is no answer yet"))
    run))

(defun rlm--answer-plain (run)
  "Return the answer of RUN as text to be put into a file.
If it is one block of code and nothing else, that is its content."
  (let ((answer (string-trim (rlm-run-answer run))))
    (if (string-match "\\````[^\n]*\n\\(\\(?:.\\|\n\\)*?\\)\n?```\\'" answer)
        (match-string 1 answer)
      answer)))

(defun rlm-copy-answer (run)
  "Put the answer of RUN into the kill ring, as the model wrote it."
  (interactive (list (rlm--answered-run)))
  (kill-new (rlm-run-answer run))
  (message "Copied %s" (rlm--count (length (rlm-run-answer run)) "character")))

(defun rlm-insert-answer (run)
  "Insert the answer of RUN at point; in Org buffers as Org text.
`rlm-discard-answer' removes it again."
  (interactive (list (let ((rlm--run nil)) (rlm--answered-run))))
  (barf-if-buffer-read-only)
  (let ((text (if (derived-mode-p 'org-mode)
                  (rlm--org-text (rlm-run-answer run))
                (rlm--answer-plain run))))
    (push-mark)
    (insert (propertize text 'rlm-run (rlm-run-id run)
                        'rear-nonsticky t 'front-sticky nil))))

(defun rlm--org-text (markdown)
  "Return MARKDOWN as Org text."
  (with-temp-buffer
    (let ((stream (rlm--stream-open (current-buffer) (point-min))))
      (insert (rlm--stream-convert stream markdown t)))
    (string-trim-right (buffer-string))))

(defun rlm-discard-answer ()
  "Remove the answer at point that was inserted, in one step.
In an answer buffer the buffer goes, and the run is cancelled if it
is still going."
  (interactive)
  (let ((overlay (rlm--proposal-at-point)))
    (cond (overlay (rlm--proposal-end overlay))
          ((get-text-property (point) 'rlm-run) (rlm--discard-inserted (point)))
          ((and (> (point) (point-min)) (get-text-property (1- (point)) 'rlm-run))
           (rlm--discard-inserted (1- (point))))
          (rlm--run (let ((rlm-on-kill 'cancel))
                      (kill-buffer (current-buffer))))
          (t (user-error "There is no answer at point")))))

(defun rlm--discard-inserted (position)
  "Delete all that was inserted with the answer at POSITION."
  (let ((id (get-text-property position 'rlm-run))
        (handle (prepare-change-group)))
    (undo-boundary)
    (save-excursion
      (goto-char (point-min))
      (let (match)
        (while (setq match (text-property-search-forward 'rlm-run id t))
          (delete-region (prop-match-beginning match) (prop-match-end match)))))
    (undo-amalgamate-change-group handle)))

;;;; Proposals

(defvar rlm-proposal-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-c") #'rlm-accept)
    (define-key map (kbd "C-c C-k") #'rlm-reject)
    (define-key map (kbd "C-c C-e") #'rlm-proposal-ediff)
    map)
  "Keymap on a text for which an answer is proposed.")

(defun rlm-replace-source (run)
  "Propose the answer of RUN in the place of the text that it is about.
\\<rlm-proposal-map>There \\[rlm-accept] accepts, \\[rlm-reject] rejects and \\[rlm-proposal-ediff] compares."
  (interactive (list (rlm--answered-run)))
  (let ((source (car (rlm-run-sources run))))
    (unless (and source (null (cdr (rlm-run-sources run)))
                 (buffer-live-p (rlm-source-buffer source))
                 (null (rlm-source-prepare source)))
      (user-error "This answer is not about one text in a buffer"))
    (pop-to-buffer (rlm-source-buffer source))
    (barf-if-buffer-read-only)
    (let ((start (marker-position (rlm-source-start source))))
      (rlm--propose start (marker-position (rlm-source-end source))
                    (rlm--answer-plain run))
      (goto-char start)
      (message "%s" (substitute-command-keys
                     "\\<rlm-proposal-map>\\[rlm-accept] accepts, \\[rlm-reject] rejects, \\[rlm-proposal-ediff] compares")))))

(defun rlm--propose (start end text)
  "Propose TEXT for START to END of the current buffer."
  (let* ((ends-line (and (> end start) (eq ?\n (char-before end))))
         (text (if (and ends-line (not (string-suffix-p "\n" text)))
                   (concat text "\n")
                 text))
         (overlay (make-overlay start end nil t nil)))
    (overlay-put overlay 'rlm-proposal text)
    (overlay-put overlay 'display (propertize text 'face 'rlm-proposal))
    (overlay-put overlay 'keymap rlm-proposal-map)
    (overlay-put overlay 'help-echo "A proposed answer")
    overlay))

(defun rlm--proposal-at-point ()
  "Return the overlay of the proposal at point, or nil."
  (seq-find (lambda (overlay) (overlay-get overlay 'rlm-proposal))
            (overlays-in (point) (min (point-max) (1+ (point))))))

(defun rlm--proposal-here ()
  "Return the overlay of the proposal at point, or of the only one."
  (or (rlm--proposal-at-point)
      (pcase (seq-filter (lambda (overlay) (overlay-get overlay 'rlm-proposal))
                         (overlays-in (point-min) (point-max)))
        (`(,one) one)
        (_ (user-error "There is no proposal at point")))))

(defun rlm--proposal-end (overlay)
  "Remove the proposal OVERLAY; the text stays."
  (delete-overlay overlay))

(defun rlm-accept ()
  "Put the proposal at point in the place of the text, as one change."
  (interactive)
  (let* ((overlay (rlm--proposal-here))
         (start (overlay-start overlay))
         (end (overlay-end overlay))
         (text (overlay-get overlay 'rlm-proposal)))
    (rlm--proposal-end overlay)
    (undo-boundary)
    (atomic-change-group
      (save-excursion
        (goto-char start)
        (delete-region start end)
        (insert text)))))

(defun rlm-reject ()
  "Leave the text at point as it is."
  (interactive)
  (rlm--proposal-end (rlm--proposal-here)))

(defun rlm-proposal-ediff ()
  "Compare the proposal at point with the text, in Ediff."
  (interactive)
  (let* ((overlay (rlm--proposal-here))
         (mode major-mode)
         (copy (lambda (name text)
                 (with-current-buffer (generate-new-buffer name)
                   (insert text)
                   (delay-mode-hooks (funcall mode))
                   (set-buffer-modified-p nil)
                   (current-buffer)))))
    (ediff-buffers (funcall copy "*rlm text*"
                            (buffer-substring-no-properties (overlay-start overlay)
                                                            (overlay-end overlay)))
                   (funcall copy "*rlm proposal*" (overlay-get overlay 'rlm-proposal)))))

(provide 'rlm-apply)
;;; rlm-apply.el ends here
