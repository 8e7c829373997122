;;; rlm-run.el --- What is known of each run -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A run is one question asked of contexts.  Here are what is known of
;; it, the `rlm-run', how it is asked for, followed and cancelled, and
;; what becomes of it when the connection breaks.  What the daemon
;; tells of it is taken in by rlm-fold.el.
;;
;; Whoever wants to show a run adds an observer, a function called
;; with RUN, EVENT and DATA:
;;
;;   fact     a fact was folded in; DATA is its plist
;;   delta    DATA is (TEXT . PIECE): the stream TEXT, an `rlm--text', has
;;            grown by PIECE, a string, or has changed wholly if that is nil
;;   state    the link or state changed otherwise (lost, attached, refused)
;;   ended    the run is over and its answer is here; the last event
;;
;; This file knows no buffers and no windows.

;;; Code:

(require 'rlm-rpc)
(require 'cl-lib)

(cl-defstruct (rlm--text (:constructor rlm--text-make) (:copier nil))
  "A text that a run's model or cell is writing."
  name
  (kind nil :documentation "root or cell, once a fact told; else nil.")
  (pieces nil :documentation "Strings, last first.")
  (length 0 :documentation "Characters in all pieces.")
  (torn nil :documentation "Non-nil if a delta is missing: wait for the fact.")
  (closed nil :documentation "Non-nil when the closing fact has come."))

(cl-defstruct (rlm-run (:constructor rlm--run-make) (:copier nil))
  "One question and what became of it.
The link to the daemon is one of nil (not yet asked), `asking',
`attached', `lost', `done'.  The state is the daemon's: queued,
running, asking, waiting, ended, failed, cancelled or interrupted, and before that
`new'; `loading' while texts are taken to the daemon."
  id socket question
  (state 'new) (link nil)
  (params nil :documentation "What run/start is given, but for the contexts.")
  (sources nil :documentation "The texts asked about, a list of `rlm-source'.")
  (begin nil :documentation "Function of the run that asks for it from the start.")
  (observers nil :documentation "Functions called with RUN, EVENT, DATA.")
  (cancelled nil :documentation "Why it is to be cancelled once the daemon knows it.")
  (session-own nil :documentation "Non-nil if its session is for its answer buffer alone.")
  (created (float-time)) (ended nil)
  (heard (float-time) :documentation "When its last fact or delta came.")
  ;; What the facts told.
  outcome strategy (turn 0) (turn-limit nil)
  (pieces 0) (pieces-done 0) (pieces-cached 0) (pieces-failed 0)
  (hosts nil :documentation "Names of hosts that have answered.")
  (tokens-sent 0) (tokens-got 0)
  (money 0.0 :documentation "Dollars.")
  (energy 0.0 :documentation "Watt-hours, as far as the hosts' watts are known.")
  (energy-cost 0.0 :documentation "Dollars that these cost, where the config says.")
  (pieces-since nil :documentation "When the first batch of sub-queries began.")
  (asks nil :documentation "The fact by which it asks whether to go on, while it does.")
  (waits nil :documentation "The fact by which it waits for a host, while it does.")
  (queue nil :documentation "What the hosts said of their queue, while it waits for one.")
  (notes nil :documentation "Sentences for the person, last first.")
  (activity nil :documentation "What it is doing, a short string.")
  answer citations receipt why
  (ending nil :documentation "The fact that ended it, until one takes that back.")
  (marks nil :documentation "Alist from citations' numbers to their markers.")
  (answer-stream nil :documentation "Name of the stream that the answer equals.")
  (error nil :documentation "As in `rlm-error-text', if it failed.")
  ;; Order.
  (next 1 :documentation "Number of the fact to come.")
  (held nil :documentation "Facts that came early, by number ascending.")
  (fetching nil :documentation "Non-nil while missing facts are on their way.")
  (texts nil :documentation "Alist from stream names to `rlm--text'."))

(defvar rlm--runs (make-hash-table :test #'equal)
  "Hash table from run ids to `rlm-run's.")

(defvar rlm-run-functions nil
  "Functions called with RUN, EVENT and DATA for all runs.
For the events see the commentary of rlm-run.el.")

(defun rlm--text-string (text)
  "Return all of TEXT, an `rlm--text', as one string."
  (let ((pieces (rlm--text-pieces text)))
    (if (and pieces (null (cdr pieces)))
        (car pieces)
      (let ((string (apply #'concat (reverse pieces))))
        (setf (rlm--text-pieces text) (list string))
        string))))

;;;; Finding and watching

(defun rlm-run-find (id)
  "Return the run with ID, or nil if this Emacs does not know it."
  (gethash id rlm--runs))

(defun rlm-run-live-p (run)
  "Return non-nil if RUN is not over, as far as is known."
  (not (memq (rlm-run-state run) '(ended failed cancelled interrupted))))

(defun rlm-run-elapsed (run)
  "Return the seconds for which RUN has been going."
  (- (or (rlm-run-ended run) (float-time)) (rlm-run-created run)))

(defun rlm--run-observe (run observer)
  "Have OBSERVER called with RUN, EVENT and DATA."
  (cl-pushnew observer (rlm-run-observers run)))

(defun rlm--run-ignore (run observer)
  "Have OBSERVER of RUN called no more."
  (setf (rlm-run-observers run) (delq observer (rlm-run-observers run))))

(defun rlm--run-tell (run event &optional data)
  "Tell the observers of RUN of EVENT with DATA."
  (dolist (observer (reverse (rlm-run-observers run)))
    (rlm--guarded observer run event data))
  (rlm--run-guarded 'rlm-run-functions run event data))

(defvar rlm--id-count 0
  "Makes two ids of one instant differ.")

(defun rlm--new-id ()
  "Return a random UUID, as run ids are."
  (let ((hex (secure-hash 'sha256
                          (format "%d %d %d %d %S %s" (random) (random)
                                  (cl-incf rlm--id-count) (emacs-pid)
                                  (current-time) (system-name)))))
    (format "%s-%s-4%s-a%s-%s"
            (substring hex 0 8) (substring hex 8 12) (substring hex 13 16)
            (substring hex 17 20) (substring hex 20 32))))

;;;; Asking, following, cancelling

(autoload 'rlm-attach "rlm-ask" nil t)

(defun rlm--run-start (run contexts &optional missing)
  "Ask the daemon for RUN over CONTEXTS, a list of names.
If the daemon says that a context does not exist, call MISSING
with no argument instead of failing."
  (setf (rlm-run-link run) 'asking)
  (puthash (rlm-run-id run) run rlm--runs)
  (rlm-call "run/start"
            (append (list :run_id (rlm-run-id run)
                          :question (rlm-run-question run)
                          :contexts (vconcat contexts))
                    (rlm-run-params run))
            :socket (rlm-run-socket run)
            :success (lambda (info) (rlm--run-attached run info))
            :failure (lambda (error)
                       (if (and missing (eql (plist-get error :code) 1001))
                           (funcall missing)
                         (rlm--run-refused run error)))))

(defun rlm--run-attached (run info)
  "The daemon answered INFO: RUN's facts come by themselves from now on."
  (setf (rlm-run-link run) (if (rlm-run-live-p run) 'attached 'done))
  (when (eq (rlm-run-state run) 'new)
    (setf (rlm-run-state run) (intern (or (plist-get info :state) "running"))))
  (when (and (rlm-run-cancelled run) (rlm-run-live-p run))
    (rlm--run-cancel-there run (rlm-run-cancelled run)))
  (rlm--run-tell run 'state))

(defun rlm--run-refused (run error)
  "RUN could not be asked, or followed, for ERROR.
A lost connection is not the end: it can be attached again."
  (if (equal (plist-get error :kind) "lost")
      (rlm--run-lost run)
    (setf (rlm-run-error run) error
          (rlm-run-outcome run) "failed"
          (rlm-run-why run) (plist-get error :message))
    (rlm--run-over run 'failed)))

(defun rlm-run-attach (run)
  "Follow RUN again from where it was left, or ask for it again."
  (unless (or (memq (rlm-run-link run) '(asking attached))
              (memq (rlm-run-state run) '(ended failed cancelled)))
    (setf (rlm-run-link run) 'asking
          (rlm-run-fetching run) nil
          (rlm-run-held run) nil)
    (puthash (rlm-run-id run) run rlm--runs)
    (rlm--run-tell run 'state)
    (condition-case err
        (rlm-call "run/attach"
                  (list :run_id (rlm-run-id run) :from_seq (rlm-run-next run))
                  :socket (rlm-run-socket run)
                  :success (lambda (info) (rlm--run-attached run info))
                  :failure (lambda (error) (rlm--run-attach-failed run error)))
      ;; No daemon, and none can be started: it is as lost as before.
      (user-error (rlm--run-lost run)
                  (signal (car err) (cdr err))))))

(defun rlm--run-attach-failed (run error)
  "RUN could not be followed, for ERROR."
  (cond ((and (eql (plist-get error :code) 1001)
              (rlm-run-begin run)
              (= 1 (rlm-run-next run)))
         ;; The question itself was lost on its way.
         (funcall (rlm-run-begin run) run))
        ;; Nobody answered; the run may well go on.
        ((eql (plist-get error :code) 0)
         (rlm--run-lost run)
         (message "rlm: %s" (rlm-error-text error)))
        (t (rlm--run-refused run error))))

(defun rlm-run-cancel (run &optional why)
  "Have the daemon end RUN; WHY is kept in its journal.
One that it was not asked for yet ends at once."
  (when (rlm-run-live-p run)
    (let ((why (or why "asked in Emacs")))
      (setf (rlm-run-activity run) "cancelling")
      (pcase (rlm-run-link run)
        ('nil (setf (rlm-run-outcome run) "cancelled"
                    (rlm-run-why run) why)
              (rlm--run-over run 'cancelled))
        ;; The two requests would run side by side.
        ('asking (setf (rlm-run-cancelled run) why))
        (_ (rlm--run-cancel-there run why)))
      (rlm--run-tell run 'state))))

(defun rlm--run-cancel-there (run why)
  "Have the daemon, which knows RUN, end it; WHY as in `rlm-run-cancel'."
  (setf (rlm-run-cancelled run) nil)
  (rlm-call "run/cancel"
            (list :run_id (rlm-run-id run) :why why)
            :socket (rlm-run-socket run)
            :failure (lambda (error)
                       (setf (rlm-run-activity run) nil)
                       (message "rlm: %s" (rlm-error-text error))
                       (rlm--run-tell run 'state))))

(defun rlm--run-limit (run)
  "Return the name of the limit that ended RUN, if it can go on from there."
  (and (eq (rlm-run-state run) 'ended)
       (plist-get (rlm-run-receipt run) :limit)))

(defun rlm-run-continue (run &optional more)
  "Let RUN, which a limit has ended, go on.
MORE is a plist of how much more it may use, with the keys of
`rlm-limits' and :money; by default it is as much again of that limit."
  (unless (rlm--run-limit run)
    (user-error "No limit has ended this run"))
  (setf (rlm-run-link run) 'asking)
  (puthash (rlm-run-id run) run rlm--runs)
  (rlm-call "run/continue"
            (append (list :run_id (rlm-run-id run) :last_seq (1- (rlm-run-next run))) more)
            :socket (rlm-run-socket run)
            :success (lambda (_info)
                       ;; Its fact may have come before, and its end too.
                       (when (eq (rlm-run-link run) 'asking)
                         (setf (rlm-run-link run) 'attached)))
            :failure (lambda (error)
                       (setf (rlm-run-link run) 'done)
                       (message "rlm: %s" (rlm-error-text error)))))

(defun rlm-wait (run &optional timeout)
  "Wait until RUN is over; return RUN, or nil after TIMEOUT seconds.
Quitting stops the waiting, not the run."
  (when rlm--in-callback
    (error "A callback must not wait for a run"))
  (let ((deadline (and timeout (+ (float-time) timeout))))
    (while (and (not (rlm--run-settled-p run))
                (or (null deadline) (< (float-time) deadline)))
      (accept-process-output nil 0.02))
    (and (rlm--run-settled-p run) run)))

(defun rlm--run-settled-p (run)
  "Return non-nil if RUN is over and its observers have been told."
  (eq (rlm-run-link run) 'done))

(defun rlm--run-over (run state)
  "RUN has come to STATE, its last."
  (setf (rlm-run-state run) state
        (rlm-run-link run) 'done
        (rlm-run-ended run) (float-time)
        (rlm-run-activity run) nil
        (rlm-run-held run) nil)
  (rlm--run-tell run 'ended)
  (setf (rlm-run-texts run) nil))

;;;; Lost and found

(defcustom rlm-reattach t
  "Whether runs are followed again by themselves when the daemon is back.
It is looked for once a second, for a minute."
  :type 'boolean
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defconst rlm--reattach-seconds 60
  "For how long a daemon that went away is looked for.")

(defun rlm--run-look-out (socket)
  "Follow the lost runs at SOCKET again when somebody listens there."
  (let ((left rlm--reattach-seconds)
        timer)
    (setq timer
          (run-at-time
           1 1
           (lambda ()
             (cl-decf left)
             (cond ((or (< left 0) (not (rlm--runs-at socket 'lost)))
                    (cancel-timer timer))
                   ((file-remote-p socket)
                    ;; Once it carries, `rlm--connect-functions' do the rest.
                    (rlm--guarded #'rlm--when-ready (rlm--client socket) #'ignore #'ignore))
                   ((rlm--listens-p socket)
                    (cancel-timer timer)
                    (rlm--guarded #'rlm--runs-found socket))))))))

(defun rlm--run-lost (run)
  "The connection that RUN's facts came by is gone."
  (setf (rlm-run-link run) 'lost
        (rlm-run-fetching run) nil
        (rlm-run-activity run) nil)
  (rlm--run-tell run 'state))

(defun rlm--runs-at (socket link)
  "Return the runs at SOCKET with LINK."
  (let (runs)
    (maphash (lambda (_id run)
               (when (and (equal socket (rlm-run-socket run))
                          (eq link (rlm-run-link run)))
                 (push run runs)))
             rlm--runs)
    runs))

(defun rlm--runs-lost (socket)
  "The connection to SOCKET is gone."
  (dolist (link '(attached asking))
    (mapc #'rlm--run-lost (rlm--runs-at socket link)))
  (when (rlm--runs-at socket 'lost)
    (when rlm-reattach
      (rlm--run-look-out socket))
    (message "rlm: the connection to rlmd was lost; %s follows a run again"
             (substitute-command-keys "\\[rlm-attach]"))))

(defun rlm--runs-found (socket)
  "SOCKET is connected again: follow the runs that were lost."
  (mapc #'rlm-run-attach (rlm--runs-at socket 'lost)))

(add-hook 'rlm--disconnect-functions #'rlm--runs-lost)
(add-hook 'rlm--connect-functions #'rlm--runs-found)

(provide 'rlm-run)
;;; rlm-run.el ends here
