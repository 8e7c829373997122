;;; rlm-list.el --- Tables that the daemon is asked for -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A list is read without waiting, and again when something is done in
;; it; that of the hosts also by itself: the daemon tells when they
;; differ, and an older one is asked again while the list is seen.  A
;; list is described by an `rlm--list': the method that reads it, its
;; columns, and how an entry becomes a row.

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
  "How a list is read and shown.
LIVE is non-nil if it is read again by itself; a cons is a method
that subscribes to it, and the notification that then brings it."
  method params member columns row live)

(defvar-local rlm--list nil "The `rlm--list' of this buffer.")
(defvar-local rlm--list-timer nil "Timer that reads this list again.")
(defvar-local rlm--list-reading nil "Non-nil while this list is being read.")
(defvar-local rlm--list-subscribed nil
  "Non-nil while the daemon tells by itself when this list has changed.")
(defvar-local rlm--list-note nil "What the header says besides, or nil.")

;;;; Reading

(defun rlm--list-read ()
  "Read the list of the current buffer again."
  (unless rlm--list-reading
    (setq rlm--list-reading t)
    (let ((here (rlm--list-here (lambda () (setq rlm--list-reading nil))))
          begun)
      (unwind-protect
          (progn
            (rlm-call (rlm--list-method rlm--list) (rlm--list-params rlm--list)
                      :success (rlm--list-here (lambda (result)
                                                 (funcall here)
                                                 (rlm--list-show result)
                                                 (rlm--list-subscribe)))
                      :failure (rlm--list-here (lambda (error)
                                                 (funcall here)
                                                 (rlm--list-stop)
                                                 (setq mode-line-process " [not read]")
                                                 (message "rlm: %s" (rlm-error-text error)))))
            (setq begun t))
        (unless begun                   ; no daemon, and none can be started
          (funcall here))))))

(defun rlm--list-here (function)
  "Return FUNCTION such that it is called in the current buffer, if that lives."
  (let ((buffer (current-buffer)))
    (lambda (&rest arguments)
      (when (buffer-live-p buffer)
        (with-current-buffer buffer
          (apply function arguments))))))

;;;;; By itself

(defun rlm--list-subscribe ()
  "Have the daemon tell when the current list has changed, if it can."
  (pcase (rlm--list-live rlm--list)
    ((and `(,method . ,_) (guard (and (not rlm--list-subscribed) (rlm--can-p method))))
     (setq rlm--list-subscribed t)
     (rlm-call method (list :on t :seconds 0.5)
               :failure (rlm--list-here (lambda (_) (setq rlm--list-subscribed nil)))))))

(defun rlm--lists (socket)
  "Return the buffers with lists of the daemon at SOCKET."
  (seq-filter (lambda (buffer)
                (and (buffer-local-value 'rlm--list buffer)
                     (equal socket (with-current-buffer buffer (rlm-socket-path)))))
              (buffer-list)))

(defun rlm--list-notified (socket method params)
  "Show PARAMS, if METHOD brings what a list at SOCKET shows."
  (unless (memq method '(run/fact run/delta)) ; thousands of them
    (dolist (buffer (rlm--lists socket))
      (with-current-buffer buffer
        (when (and rlm--list-subscribed
                   (equal (symbol-name method) (cdr (rlm--list-live rlm--list))))
          (rlm--list-show params))))))

(defun rlm--list-disconnected (socket)
  "The daemon at SOCKET tells nothing more by itself."
  (dolist (buffer (rlm--lists socket))
    (with-current-buffer buffer
      (setq rlm--list-subscribed nil))))

(add-hook 'rlm--notification-functions #'rlm--list-notified)
(add-hook 'rlm--disconnect-functions #'rlm--list-disconnected)

(defun rlm--list-unsubscribe ()
  "Let the daemon not tell any more when the current list has changed."
  (when (and rlm--list-subscribed (rlm--client-live-p (rlm--client)))
    (rlm-call (car (rlm--list-live rlm--list)) '(:on :json-false) :failure #'ignore)))

(defun rlm--list-counts-down-p ()
  "Return non-nil if something in the current list changes with time alone."
  (seq-some (lambda (entry) (and (consp (car entry)) (plist-get (cdar entry) :retry_in)))
            tabulated-list-entries))

;;;; Showing

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
  (add-hook 'kill-buffer-hook #'rlm--list-unsubscribe nil t)
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
                             (unless (and rlm--list-subscribed (not (rlm--list-counts-down-p)))
                               (rlm--list-read)))))))))

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
       ;; See `read-extended-command-predicate'.
       ,@(mapcar (lambda (key) `(function-put ',(cadr key) 'command-modes '(,name))) keys)
       (define-derived-mode ,name tabulated-list-mode ,lighter
         ,(format "%s\n\n\\{%s}" doc map)))))

(provide 'rlm-list)
;;; rlm-list.el ends here
