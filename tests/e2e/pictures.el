;;; pictures.el --- The scenes that the pictures in docs/ show -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Each function picture-NAME puts on the frame what a person would see,
;; waits until it is complete, and writes the file RLM_READY: empty, or
;; with what went wrong.

;;; Code:

(require 'rlm)
(require 'rlm-ask)
(require 'rlm-answer)
(require 'rlm-status)
(require 'org)

(setq inhibit-startup-screen t
      inhibit-startup-echo-area-message (user-login-name)
      rlm-auto-start nil
      use-dialog-box nil
      frame-resize-pixelwise t
      org-confirm-babel-evaluate nil
      ring-bell-function #'ignore)
(tool-bar-mode -1)
(menu-bar-mode -1)
(scroll-bar-mode -1)
(blink-cursor-mode -1)
(set-frame-font "DejaVu Sans Mono-10" nil t)

(defun picture-ready (function &optional shown)
  "Once Emacs has started, call FUNCTION with the frame filling the screen.
When SHOWN, by default at once, returns non-nil, say that all is shown."
  (run-at-time 0.2 nil #'picture-show function (or shown (lambda () t))))

(defun picture-show (function shown)
  "Call FUNCTION; FUNCTION and SHOWN as in `picture-ready'."
  (set-frame-position (selected-frame) 0 0)
  (set-frame-size (selected-frame)
                  (- (display-pixel-width) (- (frame-outer-width) (frame-text-width)))
                  (display-pixel-height) t)
  (let ((told (condition-case err
                  (progn (funcall function) "")
                (error (error-message-string err))))
        timer)
    (setq timer (run-at-time 0.5 0.5 (lambda ()
                                       (when (or (funcall shown) (not (string-empty-p told)))
                                         (cancel-timer timer)
                                         (redisplay t)
                                         (write-region told nil (getenv "RLM_READY") nil 'silent)))))))

(defun picture-await (function)
  "Wait until FUNCTION returns non-nil."
  (let ((deadline (+ (float-time) 60)))
    (while (not (funcall function))
      (when (> (float-time) deadline)
        (error "Waited in vain"))
      (sit-for 0.05))))

(defun picture-complete-p (buffer)
  "Return non-nil if the answer in BUFFER is complete."
  (with-current-buffer buffer
    (and (rlm--run-settled-p rlm--run)
         (null (rlm--stream-closing rlm--answer-stream)))))

(defun picture-ask (question)
  "Ask QUESTION of the paper, and wait; return the answer's buffer."
  (find-file "cooling.txt")
  (delete-other-windows)
  (rlm-query question (current-buffer) :display t)
  (let ((buffer (seq-find (lambda (one) (buffer-local-value 'rlm--run one)) (buffer-list))))
    (picture-await (lambda () (picture-complete-p buffer)))
    buffer))

(defun picture-answer ()
  "An answer with its citations and receipt, the first one being looked at."
  (picture-ready
   (lambda ()
     (setq rlm-strategy "direct")
     (picture-ask "What was done about the cooling loop, and did it help?")
     (next-error 2)
     (sit-for 0.2))))

(defun picture-trace ()
  "A run as a tree."
  (picture-ready
   (lambda ()
     (setq rlm-strategy "rlm")
     (let ((buffer (picture-ask "When did the outlet fall, and why?")))
       (with-current-buffer buffer
         (rlm-trace rlm--run)
         (picture-await (lambda () (save-excursion (goto-char (point-min)) (search-forward "Ended" nil t)))))
       (delete-other-windows)
       (goto-char (point-min))))))

(defun picture-hosts ()
  "The hosts, one of them at work."
  (picture-ready
   (lambda ()
     (find-file "cooling.txt")
     (rlm-query "What was done about the cooling loop?" (current-buffer) :strategy "direct")
     (rlm-list-hosts)
     (delete-other-windows)
     (picture-await (lambda () (string-search "1/2" (buffer-string)))))))

(defun picture-menu ()
  "The menu above a text."
  (picture-ready
   (lambda ()
     (find-file "cooling.txt")
     (setq unread-command-events (listify-key-sequence (kbd "M-x r l m RET"))))
   (lambda () (get-buffer-window " *transient*" t))))

(defun picture-babel ()
  "A block with its result."
  (picture-ready
   (lambda ()
     (setq rlm-strategy "direct")
     (require 'ob-rlm)
     (org-babel-do-load-languages 'org-babel-load-languages '((rlm . t)))
     (find-file "report.org")
     (insert "#+title: Cooling loop\n\n* What we know\n\nThe minutes are in cooling.txt.\n\n"
             "#+begin_src rlm :context file:cooling.txt\n"
             "What was done about the cooling loop, and did it help?\n#+end_src\n")
     (goto-char (point-min))
     (search-forward "What was done")
     (org-babel-execute-src-block)
     (picture-await (lambda () (null (bound-and-true-p rlm--babel-running))))
     (set-buffer-modified-p nil)
     (goto-char (point-min)))))

;;; pictures.el ends here
