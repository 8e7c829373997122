;;; rlm-compose.el --- Write a long question -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A question of several lines is written in a buffer of its own, as a
;; commit message is.

;;; Code:

(require 'rlm-ask)

(defvar-local rlm--compose-sources nil
  "The texts that the question in this buffer is about.")

(defvar-local rlm--compose-choices nil
  "Keyword arguments for `rlm-query' beside those of the buffer.")

(defvar rlm-compose-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-c") #'rlm-compose-send)
    (define-key map (kbd "C-c C-k") #'rlm-compose-abandon)
    (define-key map (kbd "C-c ?") #'describe-mode)
    map)
  "Keymap of `rlm-compose-mode'.")

(define-derived-mode rlm-compose-mode text-mode "RLM-Ask"
  "Mode of the buffer in which a long question is written.

\\{rlm-compose-mode-map}"
  (setq header-line-format
        '(:eval (rlm--compose-header))))

(defun rlm--compose-header ()
  "Return the header line of the buffer in which a question is written."
  (replace-regexp-in-string
   "%" "%%"
   (substitute-command-keys
    (format "\\<rlm-compose-mode-map> Ask of %s: \\[rlm-compose-send] asks, \\[rlm-compose-abandon] forgets it"
            (rlm--describe rlm--compose-sources)))))

;;;###autoload
(defun rlm-compose (sources &optional text &rest choices)
  "Write a question about SOURCES in a buffer that begins with TEXT.
CHOICES are keyword arguments for `rlm-query'.  Interactively the
sources are those of `rlm-query'."
  (interactive (list (rlm--dwim-source current-prefix-arg)))
  (pop-to-buffer (generate-new-buffer "*rlm question*"))
  (rlm-compose-mode)
  (setq rlm--compose-sources sources
        rlm--compose-choices choices)
  (when text (insert text)))

(defun rlm-compose-from-minibuffer ()
  "Go on writing the question of the minibuffer in a buffer of its own."
  (interactive)
  (let ((sources rlm--asked-of)
        (text (minibuffer-contents-no-properties)))
    (run-at-time 0 nil (lambda () (rlm-compose sources text)))
    (abort-recursive-edit)))

(defun rlm-compose-send ()
  "Ask the question in the current buffer.
It stays there if it cannot be asked."
  (interactive)
  (let ((question (string-trim (buffer-substring-no-properties (point-min) (point-max))))
        (buffer (current-buffer)))
    (add-to-history 'rlm-query-history question)
    (apply #'rlm-query question rlm--compose-sources :display t rlm--compose-choices)
    (rlm--compose-close buffer)))

(defun rlm-compose-abandon ()
  "Forget the question in the current buffer; its text is in the kill ring."
  (interactive)
  (unless (= (point-min) (point-max))
    (kill-new (buffer-substring-no-properties (point-min) (point-max))))
  (rlm--compose-close (current-buffer)))

(defun rlm--compose-close (buffer)
  "Kill BUFFER, and its window if it has one of its own."
  (when-let ((window (get-buffer-window buffer)))
    (quit-restore-window window 'kill))
  (when (buffer-live-p buffer)
    (kill-buffer buffer)))

(provide 'rlm-compose)
;;; rlm-compose.el ends here
