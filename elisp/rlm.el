;;; rlm.el --- Ask questions of texts of any size -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers

;; Author: The rlmd maintainers
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1"))
;; Keywords: tools, convenience, hypermedia
;; URL: https://rlmd.example/
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; M-x rlm-query asks a question of the region or the buffer, however
;; large: the text is not put into a model's prompt, but becomes a
;; variable that a model searches and cuts up by program.  The daemon
;; rlmd does the work; it is started if it does not run.
;;
;; The answer streams into an Org buffer.  What it rests on is quoted
;; there, and each quote is a link into the text:
;;
;;   M-g n, M-g p   next and previous quoted place (`next-error')
;;   C-c C-o        the place of the citation at point
;;   C-c C-k        cancel the run
;;   C-c C-r        follow the run again when the connection was lost
;;
;; From Lisp:
;;
;;   (rlm-query "Who wrote this?" (current-buffer)
;;              :callback (lambda (run) (message "%s" (rlm-run-answer run))))
;;
;; The manual is in Info: (info "(rlm)").

;;; Code:

(require 'rlm-base)
(require 'rlm-start)
(require 'rlm-rpc)
(require 'rlm-run)
(require 'rlm-fold)
(require 'rlm-context)
(require 'rlm-answer)
(require 'cl-lib)

(defcustom rlm-strategy "auto"
  "How questions are answered.
\"auto\" lets the daemon choose by the size of the text."
  :type '(choice (const :tag "Let the daemon choose" "auto")
                 (const :tag "One completion over the whole text" "direct")
                 (const :tag "A model that writes programs" "rlm")
                 (const :tag "The question to each piece, then combine" "map")
                 (const :tag "Search and quote, no model" "quote"))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defvar rlm-query-history nil
  "History of questions.")

(defvar rlm--last-sources nil
  "The texts that were asked about last.")

;;;; Asking

;;;###autoload
(cl-defun rlm-query (question source &key callback display)
  "Ask QUESTION of SOURCE; return the run, an `rlm-run', at once.
SOURCE is a buffer (its accessible part), a string, or a list
\(BUFFER START END).  CALLBACK is called with the run when it is
over, however it ended; see `rlm-run-state', `rlm-run-answer',
`rlm-run-citations' and `rlm-run-error'.  With DISPLAY the answer
streams into a buffer of its own, which is displayed.

Interactively the source is the region if it is active, else the
buffer; in an answer buffer the text that the answer is about; and
with a prefix argument the text that was asked about last."
  (interactive (append (rlm--read-query current-prefix-arg) '(:display t)))
  (when (string-blank-p question)
    (user-error "There is no question"))
  (let* ((sources (if (rlm-source-p (car-safe source))
                      source
                    (list (rlm-source-from source))))
         (run (rlm--run-make :id (rlm--new-id)
                             :socket (rlm-socket-path)
                             :question question
                             :sources sources
                             :begin #'rlm--begin
                             :params (list :strategy rlm-strategy))))
    (when callback
      (rlm--run-observe run (lambda (run event _data)
                              (when (eq event 'ended)
                                (funcall callback run)))))
    (rlm--begin run)
    (setq rlm--last-sources sources)
    (when display
      (rlm--answer-display run))
    run))

(defun rlm--read-query (again)
  "Return (QUESTION SOURCE) as the user wants; with AGAIN of the last text."
  (let ((source (rlm--dwim-source again)))
    (list (read-string (format "Ask of %s: " (rlm--describe source))
                       nil 'rlm-query-history)
          source)))

(defun rlm--dwim-source (again)
  "Return the sources that the user means; with AGAIN the last ones."
  (cond
   (again (rlm--sources-again
           (or rlm--last-sources (user-error "Nothing was asked about yet"))))
   ((use-region-p)
    (list (rlm-source-from (current-buffer) (region-beginning) (region-end))))
   (rlm--run (rlm--sources-again (rlm-run-sources rlm--run)))
   (t (list (rlm-source-from (current-buffer))))))

(defun rlm--sources-again (sources)
  "Return SOURCES as their texts are now."
  (mapcar (lambda (source)
            (if (buffer-live-p (rlm-source-buffer source))
                (rlm--with-source
                 source (lambda (start end)
                          (rlm-source-from (current-buffer) start end)))
              (or (and (or (rlm-source-name source) (rlm-source-text source))
                       source)
                  (user-error "The text is gone with its buffer"))))
          sources))

(defun rlm--begin (run)
  "Take the sources of RUN to the daemon, then ask.
A daemon that is not there and cannot be started is a `user-error'."
  (let ((client (rlm--client (rlm-run-socket run))))
    (setf (rlm-run-state run) 'loading
          (rlm-run-link run) nil)
    (unless (rlm--client-live-p client)
      (mapc #'rlm--source-snapshot (rlm-run-sources run)))
    (rlm--when-ready client
                     (lambda () (rlm--load-then-ask run (rlm-run-sources run) nil nil))
                     (lambda (error) (rlm--run-refused run error)))
    (puthash (rlm-run-id run) run rlm--runs)))

(defun rlm--load-then-ask (run sources names again)
  "Have SOURCES of RUN loaded one after the other, then ask.
NAMES are the contexts that are there, last first.  AGAIN is
non-nil if the daemon had forgotten one and this is the second try."
  (if (null sources)
      (progn
        (setf (rlm-run-state run) 'new)
        (rlm--run-start run (reverse names)
                        (unless again
                          (lambda ()
                            (dolist (source (rlm-run-sources run))
                              (setf (rlm-source-name source) nil))
                            (rlm--load-then-ask run (rlm-run-sources run) nil t)))))
    (rlm--source-load (car sources) (rlm-run-socket run)
                      (lambda (name)
                        (rlm--load-then-ask run (cdr sources) (cons name names) again))
                      (lambda (error) (rlm--run-refused run error)))))

;;;; Commands on runs

(defun rlm--live-runs ()
  "Return the runs that are not over, newest first."
  (let (runs)
    (maphash (lambda (_id run)
               (when (rlm-run-live-p run) (push run runs)))
             rlm--runs)
    (sort runs (lambda (a b) (> (rlm-run-created a) (rlm-run-created b))))))

(defun rlm--read-run (prompt runs)
  "Read one of RUNS with PROMPT; if there is one only, return that."
  (pcase runs
    ('nil (user-error "There is no such run"))
    (`(,run) run)
    (_ (let ((choices (mapcar (lambda (run)
                                (cons (format "%s  %s" (substring (rlm-run-id run) 0 8)
                                              (rlm--one-line (rlm-run-question run) 60))
                                      run))
                              runs)))
         (cdr (assoc (completing-read prompt choices nil t) choices))))))

;;;###autoload
(defun rlm-cancel (run)
  "Cancel RUN: that of the current answer buffer, else one that is going.
What it found so far stays."
  (interactive (list (or rlm--run (rlm--read-run "Cancel: " (rlm--live-runs)))))
  (if (rlm-run-live-p run)
      (progn (rlm-run-cancel run)
             (message "Cancelling…"))
    (user-error "This run is over")))

(defun rlm--lost-runs ()
  "Return the runs that could be followed again, newest first."
  (seq-filter (lambda (run) (eq 'lost (rlm-run-link run))) (rlm--live-runs)))

(defun rlm-attach (run)
  "Follow RUN again: that of the current answer buffer, else one that was lost.
The connection to the daemon is made anew if need be; what
happened meanwhile is caught up with."
  (interactive (list (or rlm--run (rlm--read-run "Follow again: " (rlm--lost-runs)))))
  (if (memq (rlm-run-state run) '(ended failed cancelled))
      (user-error "This run is over")
    (rlm-run-attach run)
    (rlm--ticker-start)))

(provide 'rlm)
;;; rlm.el ends here
