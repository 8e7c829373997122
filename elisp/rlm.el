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

;; What `package-install' would find by the cookies in those files.
(autoload 'rlm-query "rlm-ask" nil t)
(autoload 'rlm-query-sync "rlm-ask")
(autoload 'rlm-query-project "rlm-ask" nil t)
(autoload 'rlm-query-directory "rlm-ask" nil t)
(autoload 'rlm-query-context "rlm-ask" nil t)
(autoload 'rlm-keep-context "rlm-ask" nil t)
(autoload 'rlm-cancel "rlm-ask" nil t)
(autoload 'rlm-attach "rlm-ask" nil t)
(autoload 'rlm-confirm "rlm-ask" nil t)
(autoload 'rlm-compose "rlm-compose" nil t)
(autoload 'rlm-open-run "rlm-again" nil t)
(autoload 'rlm-follow-up "rlm-again" nil t)
(autoload 'rlm-retry "rlm-again" nil t)
(autoload 'rlm-continue "rlm-again" nil t)
(autoload 'rlm-compare "rlm-again" nil t)
(autoload 'rlm-copy-answer "rlm-apply" nil t)
(autoload 'rlm-insert-answer "rlm-apply" nil t)
(autoload 'rlm-replace-source "rlm-apply" nil t)
(autoload 'rlm-discard-answer "rlm-apply" nil t)
(autoload 'rlm-trace "rlm-trace" nil t)
(autoload 'rlm-cell-edit "rlm-cell" nil t)
(autoload 'rlm-list-runs "rlm-status" nil t)
(autoload 'rlm-list-contexts "rlm-status" nil t)
(autoload 'rlm-list-sessions "rlm-status" nil t)
(autoload 'rlm-list-hosts "rlm-status" nil t)
(autoload 'rlm-list-budget "rlm-status" nil t)
(autoload 'rlm-doctor "rlm-doctor" nil t)
(autoload 'rlm-manual "rlm-doctor" nil t)
(autoload 'rlm-magit-mode "rlm-magit" nil t)
(autoload 'rlm-magit-message "rlm-magit" nil t)
(autoload 'rlm-magit-commit "rlm-magit" nil t)
(autoload 'rlm-magit-review "rlm-magit" nil t)
(autoload 'rlm-magit-why "rlm-magit" nil t)
(autoload 'org-babel-execute:rlm "ob-rlm")
(autoload 'org-babel-execute:rlm-python "ob-rlm")
(autoload 'rlm-disconnect "rlm-rpc" nil t)
(autoload 'rlm-dispatch "rlm-transient" nil t)

;;;###autoload
(defalias 'rlm #'rlm-dispatch)

(provide 'rlm)
;;; rlm.el ends here
