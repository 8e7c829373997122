;;; rlm-list.el --- Tables that the daemon is asked for -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A list is read without waiting, and again when something is done in
;; it; that of the hosts also by itself while it is seen.  A list is
;; described by an `rlm--list': the method that reads it, its columns,
;; and how an entry becomes a row.

;;; Code:

(require 'rlm-rpc)
(require 'cl-lib)
(require 'tabulated-list)

(defcustom rlm-list-interval 2
  "Seconds after which the list of hosts is read again while it is seen.
Nil means only by \\`g'."
  :type '(choice (const :tag "Never" nil) natnum)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(cl-defstruct (rlm--list (:constructor rlm--list-make) (:copier nil))
  "How a list is read and shown."
  method params member columns row live)

(defvar-local rlm--list nil "The `rlm--list' of this buffer.")
(defvar-local rlm--list-timer nil "Timer that reads this list again.")
(defvar-local rlm--list-reading nil "Non-nil while this list is being read.")
(defvar-local rlm--list-note nil "What the header says besides, or nil.")

;;;; Reading

(defun rlm--list-read ()
  "Read the list of the current buffer again."
  (unless rlm--list-reading
    (setq rlm--list-reading t)
    (let ((buffer (current-buffer)))
      (rlm-call (rlm--list-method rlm--list) (rlm--list-params rlm--list)
                :success (lambda (result)
                           (when (buffer-live-p buffer)
                             (with-current-buffer buffer
                               (setq rlm--list-reading nil)
                               (rlm--list-show result))))
                :failure (lambda (error)
                           (when (buffer-live-p buffer)
                             (with-current-buffer buffer
                               (setq rlm--list-reading nil)
                               (rlm--list-stop)
                               (setq mode-line-process " [not read]")))
                           (message "rlm: %s" (rlm-error-text error)))))))

(defun rlm--list-show (result)
  "Show RESULT, what the daemon answered, in the current list."
  (let ((row (rlm--list-row rlm--list)))
    (setq mode-line-process nil
          tabulated-list-entries
          (mapcar (lambda (entry) (funcall row entry))
                  (append (plist-get result (rlm--list-member rlm--list)) nil)))
    (rlm--list-print)))

(defun rlm--list-print ()
  "Print the current list, and leave point and windows where they are."
  (let ((places (mapcar (lambda (window)
                          (cons window (with-selected-window window
                                         (cons (line-number-at-pos) (current-column)))))
                        (get-buffer-window-list nil nil t))))
    (tabulated-list-print t)
    (pcase-dolist (`(,window . (,line . ,column)) places)
      (with-selected-window window
        (goto-char (point-min))
        (forward-line (1- line))
        (move-to-column column)))))

(defun rlm--list-open (name mode list)
  "Show a buffer NAME in MODE with LIST, an `rlm--list'."
  (let ((socket (rlm-socket-path)))
    (pop-to-buffer-same-window (get-buffer-create (rlm--list-name name socket)))
    (funcall mode)
    (rlm--stay-with socket))
  (setq rlm--list list
        tabulated-list-format (rlm--list-columns list)
        tabulated-list-padding 1)
  (tabulated-list-init-header)
  (setq-local revert-buffer-function (lambda (&rest _) (rlm--list-read)))
  (add-hook 'kill-buffer-hook #'rlm--list-stop nil t)
  (rlm--list-read)
  (when (and (rlm--list-live list) rlm-list-interval)
    (rlm--list-start)))

(defun rlm--list-name (name socket)
  "Return NAME, with SOCKET if that is not the usual daemon's."
  (let ((usual (with-temp-buffer (rlm-socket-path))))
    (if (equal socket usual)
        name
      (concat name " " (or (file-remote-p socket 'host) (abbreviate-file-name socket))))))

(defun rlm--list-start ()
  "Read the current list again and again while it is seen."
  (rlm--list-stop)
  (let ((buffer (current-buffer)))
    (setq rlm--list-timer
          (run-at-time rlm-list-interval rlm-list-interval
                       (lambda ()
                         (when (and (buffer-live-p buffer) (get-buffer-window buffer 'visible)
                                    (rlm--client-live-p (rlm--client)))
                           (with-current-buffer buffer
                             (rlm--list-read))))))))

(defun rlm--list-stop ()
  "Do not read the current list by itself any more."
  (when rlm--list-timer
    (cancel-timer rlm--list-timer)
    (setq rlm--list-timer nil)))

(defun rlm--list-id ()
  "Return the id of the entry at point."
  (or (tabulated-list-get-id)
      (user-error "There is nothing on this line")))

(defun rlm--list-do (method params &optional done)
  "Ask the daemon METHOD with PARAMS, say DONE, and read the list again."
  (let ((buffer (current-buffer)))
    (rlm-call method params
              :success (lambda (_)
                         (when done (message "%s" done))
                         (when (buffer-live-p buffer)
                           (with-current-buffer buffer (rlm--list-read)))))))

(defun rlm--age (time)
  "Return how long ago TIME, in seconds since the epoch, was."
  (rlm--duration (- (float-time) time)))

(defun rlm--number-less-p (column)
  "Return a predicate that sorts rows by the number in COLUMN."
  (lambda (a b)
    (let ((number (lambda (entry)
                    (let ((cell (aref (cadr entry) column)))
                      (string-to-number
                       (string-replace "," "" (if (consp cell) (car cell) cell)))))))
      (< (funcall number a) (funcall number b)))))

(defmacro rlm--define-list-mode (name lighter doc &rest keys)
  "Define the mode NAME with LIGHTER and DOC, whose map has KEYS.
These are lists of a key and a command."
  (declare (indent 2) (doc-string 3))
  (let ((map (intern (format "%s-map" name))))
    `(progn
       (defvar ,map
         (let ((map (make-sparse-keymap)))
           ,@(mapcar (lambda (key) `(define-key map (kbd ,(car key)) #',(cadr key))) keys)
           (define-key map (kbd "?") #'describe-mode)
           map)
         ,(format "Keymap of `%s'." name))
       (define-derived-mode ,name tabulated-list-mode ,lighter
         ,(format "%s\n\n\\{%s}" doc map)))))

(provide 'rlm-list)
;;; rlm-list.el ends here
