;;; rlm-transient.el --- All that there is, in one menu -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; `rlm-dispatch', which is also M-x rlm, asks with choices of model,
;; strategy, session and limits, and leads to the lists.  In answer
;; buffers `rlm-answer-menu' has what can be done with an answer.
;; What is chosen holds for the one question; transient's own C-x s
;; and C-x C-s set and save it.

;;; Code:

(require 'rlm-ask)
(require 'rlm-again)
(require 'transient)

(autoload 'rlm-compose "rlm-compose" nil t)
(autoload 'rlm-copy-answer "rlm-apply" nil t)
(autoload 'rlm-insert-answer "rlm-apply" nil t)
(autoload 'rlm-replace-source "rlm-apply" nil t)
(autoload 'rlm-discard-answer "rlm-apply" nil t)
(autoload 'rlm-trace "rlm-trace" nil t)
(autoload 'rlm-list-runs "rlm-status" nil t)
(autoload 'rlm-list-contexts "rlm-status" nil t)
(autoload 'rlm-list-sessions "rlm-status" nil t)
(autoload 'rlm-list-hosts "rlm-status" nil t)
(autoload 'rlm-list-budget "rlm-status" nil t)
(autoload 'rlm-doctor "rlm-doctor" nil t)
(autoload 'rlm-manual "rlm-doctor" nil t)

;;;; What is chosen

(defun rlm--menu-choices (arguments)
  "Return keyword arguments for `rlm-query' of transient's ARGUMENTS."
  (let* ((value (lambda (name) (transient-arg-value name arguments)))
         (number (lambda (name) (when-let ((given (funcall value name)))
                                  (string-to-number given))))
         (limits (append (when-let ((turns (funcall number "--turns=")))
                           (list :turns turns))
                         (when-let ((seconds (funcall number "--seconds=")))
                           (list :seconds seconds)))))
    (append (when-let ((profile (funcall value "--profile=")))
              (list :profile profile))
            (when-let ((strategy (funcall value "--strategy=")))
              (list :strategy strategy))
            (when-let ((root (funcall value "--root=")))
              (list :root (list root)))
            (when-let ((sub (funcall value "--sub=")))
              (list :sub (list sub)))
            (when-let ((session (funcall value "--session=")))
              (list :session session))
            (when limits (list :limits limits))
            (when (member "--fresh" arguments) (list :fresh t)))))

(defmacro rlm--define-menu-command (name doc command)
  "Define NAME with DOC, which calls COMMAND with what the menu has chosen."
  (declare (indent 1) (doc-string 2))
  `(defun ,name ()
     ,doc
     (declare (completion ignore))      ; by its menu alone
     (interactive)
     (let ((rlm--choices (rlm--menu-choices (transient-args 'rlm-dispatch)))
           (current-prefix-arg nil))
       ,command)))

(rlm--define-menu-command rlm-menu-query
  "Ask of what is at point, with what the menu has chosen."
  (call-interactively #'rlm-query))

(rlm--define-menu-command rlm-menu-buffer
  "Ask of the whole buffer, with what the menu has chosen."
  (rlm--ask-of (list (rlm-source-from (current-buffer)))))

(rlm--define-menu-command rlm-menu-directory
  "Ask of a directory, with what the menu has chosen."
  (call-interactively #'rlm-query-directory))

(rlm--define-menu-command rlm-menu-project
  "Ask of the project, with what the menu has chosen."
  (rlm-query-project))

(rlm--define-menu-command rlm-menu-context
  "Ask of a context that the daemon has, with what the menu has chosen."
  (call-interactively #'rlm-query-context))

(rlm--define-menu-command rlm-menu-last
  "Ask of the last text, with what the menu has chosen."
  (rlm--ask-of (rlm--dwim-source t)))

(rlm--define-menu-command rlm-menu-compose
  "Write a long question, with what the menu has chosen."
  (apply #'rlm-compose (rlm--dwim-source nil) nil rlm--choices))

(defun rlm--menu-read-model (prompt initial history)
  "Read a model with PROMPT, INITIAL and HISTORY."
  (completing-read prompt (rlm--models) nil nil initial history))

(defun rlm--menu-read-profile (prompt initial history)
  "Read the name of a profile with PROMPT, INITIAL and HISTORY."
  (completing-read prompt (mapcar #'car rlm-profiles) nil t initial history))

(defun rlm--menu-read-session (prompt initial history)
  "Read a session's name, old or new, with PROMPT, INITIAL and HISTORY."
  (completing-read prompt
                   (mapcar (lambda (session) (plist-get session :name))
                           (plist-get (rlm-call-sync "session/list" nil) :sessions))
                   nil nil initial history))

;;;; The menus

;;;###autoload (autoload 'rlm-dispatch "rlm-transient" nil t)
(transient-define-prefix rlm-dispatch ()
  "Ask questions of texts of any size."
  [["Ask of"
    ("q" "what is at point" rlm-menu-query)
    ("b" "the buffer" rlm-menu-buffer)
    ("d" "a directory" rlm-menu-directory)
    ("p" "the project" rlm-menu-project)
    ("c" "a kept context" rlm-menu-context)
    ("l" "the last text" rlm-menu-last)
    ("e" "write it at length" rlm-menu-compose)]
   ["Runs"
    ("k" "cancel" rlm-cancel)
    ("o" "open, follow again" rlm-open-run)
    ("g" "go on after a limit" rlm-continue)
    ("t" "trace" rlm-trace)
    ("=" "compare answers" rlm-compare)
    ("y" "insert an answer" rlm-insert-answer)
    ("K" "keep a context" rlm-keep-context)]
   ["Look at"
    ("R" "runs" rlm-list-runs)
    ("C" "contexts" rlm-list-contexts)
    ("S" "sessions" rlm-list-sessions)
    ("H" "hosts" rlm-list-hosts)
    ("B" "the budget" rlm-list-budget)
    ("D" "whether all is well" rlm-doctor)
    ("?" "the manual" rlm-manual)]]
  ;; A row of its own: a terminal has 80 columns, and a model a long name.
  [["With"
    ("-p" "Profile" "--profile=" :reader rlm--menu-read-profile)
    ("-s" "Strategy" "--strategy=" :reader rlm--read-strategy)
    ("-m" "Root model" "--root=" :reader rlm--menu-read-model)
    ("-u" "Sub-model" "--sub=" :reader rlm--menu-read-model)]
   [""
    ("-n" "Session" "--session=" :reader rlm--menu-read-session)
    ("-t" "Turns" "--turns=" :reader transient-read-number-N+)
    ("-w" "Seconds" "--seconds=" :reader transient-read-number-N+)
    ("-f" "Not from the cache" "--fresh")]])

;;;###autoload (autoload 'rlm-answer-menu "rlm-transient" nil t)
(transient-define-prefix rlm-answer-menu ()
  "What can be done with an answer."
  [["Ask"
    ("f" "on, in the same session" rlm-follow-up)
    ("a" "again, another model" rlm-retry)
    ("=" "compare answers" rlm-compare)]
   ["Run"
    ("k" "cancel" rlm-cancel)
    ("y" "answer what it asks" rlm-confirm)
    ("r" "follow again" rlm-attach)
    ("g" "go on after a limit" rlm-continue)
    ("t" "watch it at work" rlm-trace)]
   ["Use"
    ("w" "copy" rlm-copy-answer)
    ("p" "propose for the text" rlm-replace-source)
    ("d" "discard" rlm-discard-answer)
    ("?" "the manual" rlm-manual)]])

(provide 'rlm-transient)
;;; rlm-transient.el ends here
