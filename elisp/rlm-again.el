;;; rlm-again.el --- Ask on, ask again, open what was asked -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; What follows an answer: another question in the same session, whose
;; names are still there; the same question to another model; two
;; answers side by side; a run of yesterday, by the daemon's journal.

;;; Code:

(require 'rlm-ask)
(require 'rlm-answer)

(declare-function ediff-buffers "ediff" (buffer-a buffer-b &optional startup-hooks job-name))

;;;; The same session

(defun rlm-follow-up (run question)
  "Ask QUESTION in the session of RUN, of the same texts.
What RUN's programs have found is still there, and the root model
is told what was asked and answered.  Without a session the
question begins one."
  (interactive (let ((run (rlm--run-here)))
                 (list run (rlm--read-question (rlm-run-sources run)))))
  (let* ((session (plist-get (rlm-run-params run) :session))
         (next (rlm-query question (rlm--sources-again (rlm-run-sources run))
                          :display t :session session
                          :strategy (plist-get (rlm-run-params run) :strategy))))
    (when session
      (setf (rlm-run-session-own next) (rlm-run-session-own run)))
    next))

(defun rlm--run-here ()
  "Return the run of the current buffer, or else one that the user chooses."
  (or rlm--run
      (rlm--read-run "Run: " (rlm--known-runs))))

(defun rlm--known-runs ()
  "Return all runs that this Emacs knows, newest first."
  (sort (hash-table-values rlm--runs)
        (lambda (a b) (> (rlm-run-created a) (rlm-run-created b)))))

;;;; The same run

(defun rlm-continue (run &optional more)
  "Let RUN, which a limit has ended, go on from where it stopped.
It gets as much again of what it had at first; with a prefix argument
you say how much.  MORE is as in `rlm-run-continue'."
  (interactive (let ((run (rlm--limited-run)))
                 (list run (when current-prefix-arg (rlm--read-more run)))))
  (rlm-run-continue run more)
  (rlm--ticker-start))

(defun rlm--limited-run ()
  "Return the run of the current buffer, or one of those that a limit has ended."
  (if (and rlm--run (rlm--run-limit rlm--run))
      rlm--run
    (rlm--read-run "Continue: " (seq-filter #'rlm--run-limit (rlm--known-runs)))))

(defun rlm--read-more (run)
  "Read how much more RUN may use of what has ended it."
  (let ((limit (rlm--run-limit run)))
    (unless (member limit '("repeats" "confirmation")) ; these take no amount
      (list (intern (concat ":" limit))
            (read-number (format "How many more %s: " (string-replace "_" "-" limit)))))))

;;;; The same question

(defun rlm-retry (run model)
  "Ask the question of RUN again, of MODEL, as \"host/model\".
With an empty MODEL the daemon chooses.  Nothing is taken from the
cache.  `rlm-compare' shows two answers side by side."
  (interactive (list (rlm--run-here) (rlm--read-model "Ask again, of model: ")))
  (rlm-query (rlm-run-question run) (rlm--sources-again (rlm-run-sources run))
             :display t :fresh t
             :strategy (plist-get (rlm-run-params run) :strategy)
             :root (unless (string-empty-p model) (list model))))

(defun rlm--read-model (prompt)
  "Read one of the hosts' models with PROMPT; the empty string is none.
The daemon says which of them its configuration lets lead a run."
  (completing-read prompt (rlm--models)))

(defun rlm--models ()
  "Return the names of all models, as \"host/model\"."
  (let (names)
    (seq-doseq (host (plist-get (rlm-call-sync "host/list" nil) :hosts))
      (seq-doseq (model (plist-get host :models))
        (push (concat (plist-get host :name) "/" (plist-get model :name)) names)))
    (nreverse names)))

(defun rlm--read-strategy (prompt &optional initial history)
  "Read with PROMPT a strategy or a program of the user.
INITIAL and HISTORY as in `completing-read'."
  (let* ((ways (append rlm--strategies (rlm--programs)))
         (completion-extra-properties
          (list :annotation-function
                (lambda (name) (concat "  " (cdr (assoc name ways)))))))
    (completing-read prompt ways nil t initial history)))

(defun rlm--programs ()
  "Return an alist of the user's programs that can be asked for: name, summary.
Nil if the daemon cannot tell."
  (let (programs)
    (seq-doseq (program (plist-get (ignore-errors (rlm-call-sync "program/list" nil)) :programs))
      (unless (plist-get program :problem)
        (push (cons (plist-get program :name) (plist-get program :summary)) programs)))
    (nreverse programs)))

(defun rlm-compare (one two)
  "Compare the answers of the runs ONE and TWO with Ediff."
  (interactive
   (let* ((runs (seq-filter (lambda (run) (not (string-empty-p (or (rlm-run-answer run) ""))))
                            (rlm--known-runs)))
          (one (if (memq rlm--run runs) rlm--run (rlm--read-run "Compare: " runs))))
     (list one (rlm--read-run "With: " (or (remq one runs)
                                           (user-error "There is only one answer"))))))
  (ediff-buffers (rlm--answer-copy one) (rlm--answer-copy two)))

(defun rlm--answer-copy (run)
  "Return a buffer with the answer of RUN alone, lines filled."
  (let ((buffer (generate-new-buffer
                 (format "*rlm answer: %s*" (string-join (rlm-run-hosts run) " ")))))
    (with-current-buffer buffer
      (insert (string-trim (rlm-run-answer run)) "\n")
      (set-buffer-modified-p nil)
      (setq buffer-read-only t))
    buffer))

;;;; What was asked before

(defun rlm--read-run-id (prompt)
  "Read with PROMPT one of the runs that the daemon knows; return its id."
  (let* ((runs (append (plist-get (rlm-call-sync "run/list" (list :limit 200)) :runs) nil))
         (choices (mapcar (lambda (info)
                            (cons (format "%s  %-11s %s"
                                          (substring (plist-get info :run_id) 0 8)
                                          (plist-get info :state)
                                          (rlm--one-line (rlm--info-question info) 60))
                                  (plist-get info :run_id)))
                          runs)))
    (unless choices
      (user-error "The daemon knows no runs"))
    (cdr (assoc (completing-read
                 prompt
                 (lambda (string predicate action)
                   (if (eq action 'metadata)
                       '(metadata (display-sort-function . identity))
                     (complete-with-action action choices string predicate)))
                 nil t)
                choices))))

(defun rlm--info-question (info)
  "Return the question in INFO, a run as the daemon lists it."
  (let ((text (plist-get info :question)))
    (or (plist-get text :text) (plist-get text :preview) "")))

(defun rlm--answer-buffer (run)
  "Return the answer buffer of RUN, or nil if it has none."
  (seq-find (lambda (buffer)
              (and (eq run (buffer-local-value 'rlm--run buffer))
                   (with-current-buffer buffer (derived-mode-p 'rlm-answer-mode))))
            (buffer-list)))

;;;###autoload
(defun rlm-open-run (id &optional socket)
  "Show the answer of the run ID, and follow it if it is going.
The daemon has it in its journal, whoever asked.  SOCKET names
another daemon than the configured one."
  (interactive (list (rlm--read-run-id "Open run: ")))
  (let* ((run (rlm-run-find id))
         (buffer (and run (rlm--answer-buffer run))))
    (cond
     (buffer (pop-to-buffer buffer rlm-display-action))
     ((and run (memq (rlm-run-link run) '(attached asking done lost)))
      (rlm--answer-again run))
     (t
      (rlm-call "run/show" (list :run_id id)
                :socket socket
                :success (lambda (result)
                           (rlm--run-reopen id (plist-get result :run) socket)))))))

(defun rlm--answer-again (run)
  "Show RUN, which this Emacs knows, in a new answer buffer."
  (with-current-buffer (rlm--answer-display run)
    (if (rlm--run-settled-p run)
        (rlm--answer-observe run 'ended nil)
      (pcase-dolist (`(,_name . ,text) (reverse (rlm-run-texts run)))
        (unless (rlm--text-closed text)
          (rlm--answer-observe run 'delta (cons text nil)))))))

(defun rlm--run-of-info (id info socket)
  "Return the run ID at SOCKET as INFO, of run/list, describes it.
It is yet to be followed."
  (let ((known (rlm-run-find id)))
    (rlm--run-make
     :id id
     :socket (or socket (rlm-socket-path))
     :question (rlm--info-question info)
     :created (plist-get info :created)
     :params (append
              (unless (equal "execute" (plist-get info :strategy))
                (list :strategy (plist-get info :strategy)))
              (when-let ((session (plist-get info :session)))
                (list :session session)))
     :sources (if known
                  (rlm-run-sources known)
                (mapcar (lambda (pin)
                          (rlm--source-from-context (plist-get pin :context)))
                        (plist-get info :contexts))))))

(defun rlm--run-reopen (id info socket)
  "Show the run ID that INFO, of run/list, describes, at SOCKET.
Its facts come from the journal, and then as they happen."
  (let ((run (rlm--run-of-info id info socket)))
    (puthash id run rlm--runs)
    (rlm--answer-display run)
    (rlm-run-attach run)))

(provide 'rlm-again)
;;; rlm-again.el ends here
