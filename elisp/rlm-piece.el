;;; rlm-piece.el --- Show a text, a program, a sub-query -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; How texts of a run are shown when a person looks at one: programs in
;; the colours of Python, sub-queries with the pieces that they read.

;;; Code:

(require 'rlm-run)
(require 'rlm-fold)
(require 'rlm-cite)

(defvar python-indent-guess-indent-offset)

(defface rlm-trace-heading '((t :inherit bold))
  "Face of the headings of turns."
  :group 'rlm)

(defface rlm-trace-detail '((t :inherit shadow))
  "Face of what a heading says besides: host, tokens, time."
  :group 'rlm)

(defconst rlm--trace-line 1000
  "Characters of a line that are shown; longer ones make Emacs slow.")

(defun rlm--trace-value (text code &optional reply)
  "Return TEXT, a plist of a fact, for display.
If CODE is non-nil it is Python; if REPLY is, a root model's reply,
whose cells are shown for themselves."
  (let* ((whole (plist-get text :text))
         (said (or whole (plist-get text :preview) ""))
         (string (rlm--trace-short-lines
                  (if reply
                      (replace-regexp-in-string
                       "^```\\(?:repl\\|python\\)\n\\(?:.*\n\\)*?```[ \t]*\n?" "" said)
                    said))))
    (concat (if code (rlm--trace-python string) string)
            (unless whole
              (propertize (format "\n[%s; RET shows all]"
                                  (rlm--count (plist-get text :chars) "character"))
                          'face 'rlm-trace-detail)))))

(defun rlm--trace-short-lines (string)
  "Return STRING with its very long lines cut."
  (replace-regexp-in-string
   (format "^\\(.\\{%d\\}\\).+$" rlm--trace-line) "\\1…" (string-trim string "\n+" "\n+")))

(defun rlm--trace-python (code)
  "Return CODE with the faces of Python."
  (with-temp-buffer
    (insert code)
    (let ((python-indent-guess-indent-offset nil))
      (delay-mode-hooks (python-mode))
      (font-lock-ensure))
    (let ((position (point-min)))
      (while (< position (point-max))
        (let ((next (next-single-property-change position 'face nil (point-max))))
          (when-let ((face (get-text-property position 'face)))
            (put-text-property position next 'font-lock-face face))
          (setq position next))))
    (remove-list-of-text-properties (point-min) (point-max) '(fontified face syntax-table))
    (buffer-string)))

(defun rlm--completion-detail (completion)
  "Return host, tokens and time of COMPLETION for a heading."
  (when completion
    (format "%s/%s · %s↑ %s↓ · %.1f s%s"
            (plist-get completion :host) (plist-get completion :model)
            (plist-get completion :prompt_tokens)
            (plist-get completion :completion_tokens)
            (or (plist-get completion :seconds) 0)
            (if (equal "model" (plist-get completion :source)) ""
              (concat " · " (plist-get completion :source))))))

(defun rlm--piece-failed-p (fact)
  "Return non-nil if FACT tells of a sub-query that failed."
  (equal "subquery_failed" (plist-get fact :type)))

(defun rlm--text-display (title text)
  "Show TEXT under TITLE in a buffer of its own."
  (with-current-buffer (get-buffer-create "*rlm-text*")
    (special-mode)
    (let ((inhibit-read-only t))
      (erase-buffer)
      (insert text)
      (goto-char (point-min)))
    (setq header-line-format (concat " " (string-replace "%" "%%" title)))
    (setq-local font-lock-defaults '(nil t))
    (font-lock-mode 1)
    (display-buffer (current-buffer) '(nil (inhibit-same-window . t)))))

;;;; One sub-query

(defun rlm--piece-show (run fact)
  "Show the sub-query of RUN that FACT tells of, with prompt and reply."
  (let ((prompt nil)
        (title (format "sub-query %d  %s" (plist-get fact :slot)
                       (or (rlm--completion-detail (plist-get fact :completion)) ""))))
    (rlm--piece-prompt
     run fact
     (lambda (text)
       (setq prompt text)
       (if (rlm--piece-failed-p fact)
           (let ((error (plist-get fact :error)))
             (rlm--piece-write title prompt "Failed"
                               (format "%s  %s" (plist-get error :message)
                                       (or (plist-get error :hint) ""))))
         (rlm--run-value run (plist-get fact :reply)
                         (lambda (reply)
                           (rlm--piece-write title prompt "Reply" reply))))))))

(defun rlm--piece-write (title prompt label reply)
  "Show PROMPT and, under LABEL, REPLY under TITLE."
  (rlm--text-display
   title
   (concat (propertize "Prompt" 'font-lock-face 'rlm-trace-heading) "\n\n" prompt "\n\n"
           (propertize label 'font-lock-face 'rlm-trace-heading) "\n\n" reply "\n")))

(defun rlm--piece-prompt (run fact callback)
  "Call CALLBACK with the prompt of FACT, of RUN.
The journal has its beginning; the pieces of contexts that it held
are read from there."
  (let ((preview (plist-get fact :prompt_preview))
        (chars (plist-get fact :prompt_chars)))
    (if (>= (length preview) chars)
        (funcall callback preview)
      (rlm--piece-spans
       run (append (plist-get fact :spans) nil)
       (format "%s\n%s" preview
               (propertize (format "[the beginning, of %s]" (rlm--count chars "character"))
                           'font-lock-face 'rlm-trace-detail))
       callback))))

(defun rlm--piece-spans (run spans sofar callback)
  "Call CALLBACK with SOFAR and the texts of SPANS of contexts of RUN."
  (if (null spans)
      (funcall callback sofar)
    (let* ((span (car spans))
           (next (lambda (text)
                   (rlm--piece-spans
                    run (cdr spans)
                    (concat sofar "\n\n"
                            (propertize (format "It held %s:" (rlm--span-label run span))
                                        'font-lock-face 'rlm-trace-detail)
                            "\n" text)
                    callback))))
      (rlm-call "context/peek"
                (list :name (plist-get span :context) :document (plist-get span :document)
                      :start (plist-get span :start)
                      :chars (max 1 (min 65536 (- (plist-get span :end)
                                                  (plist-get span :start)))))
                :socket (rlm-run-socket run)
                :success (lambda (result) (funcall next (plist-get result :text)))
                :failure (lambda (error) (funcall next (rlm-error-text error)))))))

(provide 'rlm-piece)
;;; rlm-piece.el ends here
