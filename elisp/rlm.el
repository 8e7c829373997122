;;; rlm.el --- Ask questions of texts of any size -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers

;; Author: The rlmd maintainers
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1"))
;; Keywords: tools, convenience, hypermedia
;; URL: https://rlmd.example/
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; M-x rlm-query asks a question of the region, the marked files, the
;; buffer or whatever else point is at, however large: the text is not
;; put into a model's prompt, but becomes a variable that a model
;; searches and cuts up by program.  The daemon rlmd does the work; it
;; is started if it does not run.  M-x rlm shows all that there is.
;;
;; The answer streams into an Org buffer.  What it rests on is quoted
;; there, and each quote is a link into the text:
;;
;;   M-g n, M-g p   next and previous quoted place (`next-error')
;;   C-c C-o        the place of the citation at point
;;   C-c C-k        cancel the run
;;   C-c C-f        ask on, in the same session
;;   C-c C-t        watch the run at work
;;   C-c ?          everything else
;;
;; From Lisp:
;;
;;   (rlm-query "Who wrote this?" (current-buffer)
;;              :callback (lambda (run) (message "%s" (rlm-run-answer run))))
;;   (rlm-query-sync "Who wrote this?" (buffer-string))
;;
;; The manual is in Info: (info "(rlm)").
;;
;; This file is the door only, so that loading it costs nothing: each
;; command brings the part that it needs.

;;; Code:

(require 'rlm-base)

(defun rlm--door (function file &optional interactive)
  "Have FILE loaded when FUNCTION is called, a command if INTERACTIVE.
If FUNCTION is an autoload of this file, as `use-package' makes them, it
is being called: Emacs does not follow one autoload to another."
  (let ((known (symbol-function function)))
    (autoload function file nil interactive)
    (when (and (autoloadp known)
               (equal "rlm" (file-name-base (nth 1 known))))
      (require (intern file)))))

;; What `package-install' would find by the cookies in those files.
(rlm--door 'rlm-query "rlm-ask" t)
(rlm--door 'rlm-query-sync "rlm-ask")
(rlm--door 'rlm-query-project "rlm-ask" t)
(rlm--door 'rlm-query-directory "rlm-ask" t)
(rlm--door 'rlm-query-context "rlm-ask" t)
(rlm--door 'rlm-keep-context "rlm-ask" t)
(rlm--door 'rlm-cancel "rlm-ask" t)
(rlm--door 'rlm-attach "rlm-ask" t)
(rlm--door 'rlm-confirm "rlm-ask" t)
(rlm--door 'rlm-compose "rlm-compose" t)
(rlm--door 'rlm-open-run "rlm-again" t)
(rlm--door 'rlm-follow-up "rlm-again" t)
(rlm--door 'rlm-retry "rlm-again" t)
(rlm--door 'rlm-continue "rlm-again" t)
(rlm--door 'rlm-compare "rlm-again" t)
(rlm--door 'rlm-copy-answer "rlm-apply" t)
(rlm--door 'rlm-insert-answer "rlm-apply" t)
(rlm--door 'rlm-replace-source "rlm-apply" t)
(rlm--door 'rlm-discard-answer "rlm-apply" t)
(rlm--door 'rlm-trace "rlm-trace" t)
(rlm--door 'rlm-cell-edit "rlm-cell" t)
(rlm--door 'rlm-list-runs "rlm-status" t)
(rlm--door 'rlm-list-contexts "rlm-status" t)
(rlm--door 'rlm-list-sessions "rlm-status" t)
(rlm--door 'rlm-list-hosts "rlm-status" t)
(rlm--door 'rlm-list-budget "rlm-status" t)
(rlm--door 'rlm-doctor "rlm-doctor" t)
(rlm--door 'rlm-manual "rlm-doctor" t)
(rlm--door 'rlm-magit-mode "rlm-magit" t)
(rlm--door 'rlm-magit-message "rlm-magit" t)
(rlm--door 'rlm-magit-commit "rlm-magit" t)
(rlm--door 'rlm-magit-review "rlm-magit" t)
(rlm--door 'rlm-magit-why "rlm-magit" t)
(rlm--door 'org-babel-execute:rlm "ob-rlm")
(rlm--door 'org-babel-execute:rlm-python "ob-rlm")
(rlm--door 'rlm-disconnect "rlm-rpc" t)
(rlm--door 'rlm-dispatch "rlm-transient" t)

(when (autoloadp (symbol-function 'rlm))
  (require 'rlm-transient))
;;;###autoload
(defalias 'rlm #'rlm-dispatch)

(provide 'rlm)
;;; rlm.el ends here
