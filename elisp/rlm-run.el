;;; rlm-run.el --- What is known of each run -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A run is one question asked of contexts.  The daemon tells of it in
;; numbered facts, which are folded here into an `rlm-run', in order
;; and without a gap: a fact that comes early is held back, one that
;; is missing is fetched.  Between facts come deltas, pieces of a text
;; that is still being written.
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
running, ended, failed, cancelled or interrupted, and before that
`new'; `loading' while texts are taken to the daemon."
  id socket question
  (state 'new) (link nil)
  (params nil :documentation "What run/start is given, but for the contexts.")
  (sources nil :documentation "The texts asked about, a list of `rlm-source'.")
  (begin nil :documentation "Function of the run that asks for it from the start.")
  (observers nil :documentation "Functions called with RUN, EVENT, DATA.")
  (created (float-time)) (ended nil)
  ;; What the facts told.
  outcome strategy (turn 0) (turn-limit nil)
  (pieces 0) (pieces-done 0) (pieces-cached 0) (pieces-failed 0)
  (hosts nil :documentation "Names of hosts that have answered.")
  (notes nil :documentation "Sentences for the person, last first.")
  (activity nil :documentation "What it is doing, a short string.")
  answer citations receipt why
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
    (rlm-call "run/attach"
              (list :run_id (rlm-run-id run) :from_seq (rlm-run-next run))
              :socket (rlm-run-socket run)
              :success (lambda (info) (rlm--run-attached run info))
              :failure (lambda (error)
                         (if (and (eql (plist-get error :code) 1001)
                                  (rlm-run-begin run)
                                  (= 1 (rlm-run-next run)))
                             ;; The question itself was lost on its way.
                             (funcall (rlm-run-begin run) run)
                           (rlm--run-refused run error))))))

(defun rlm-run-cancel (run &optional why)
  "Have the daemon end RUN; WHY is kept in its journal."
  (when (rlm-run-live-p run)
    (setf (rlm-run-activity run) "cancelling")
    (rlm--run-tell run 'state)
    (rlm-call "run/cancel"
              (list :run_id (rlm-run-id run) :why (or why "asked in Emacs"))
              :socket (rlm-run-socket run)
              :failure (lambda (error)
                         (setf (rlm-run-activity run) nil)
                         (message "rlm: %s" (rlm-error-text error))
                         (rlm--run-tell run 'state)))))

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

;;;; What the daemon sends

(defun rlm--run-notified (socket method params)
  "Take the notification METHOD with PARAMS from SOCKET."
  (let ((run (rlm-run-find (plist-get params :run_id))))
    (when (and run (equal socket (rlm-run-socket run)))
      (pcase method
        ('run/fact (rlm--run-take-fact run params))
        ('run/delta (rlm--run-take-delta run params))
        ('run/gap (rlm--run-fetch run (plist-get params :to_seq)))))))

(add-hook 'rlm--notification-functions #'rlm--run-notified)

(defun rlm--run-take-fact (run fact)
  "Fold FACT into RUN when its turn has come, else hold it."
  (let ((seq (plist-get fact :seq)))
    (cond
     ((< seq (rlm-run-next run)))       ; known already
     ((= seq (rlm-run-next run))
      (rlm--run-apply run fact)
      (rlm--run-release run))
     (t
      (rlm--run-hold run fact)
      (rlm--run-fetch run (1- (plist-get (car (rlm-run-held run)) :seq)))))))

(defun rlm--run-hold (run fact)
  "Keep FACT of RUN until those before it have come."
  (let ((seq (plist-get fact :seq)))
    (unless (seq-find (lambda (held) (= seq (plist-get held :seq)))
                      (rlm-run-held run))
      (setf (rlm-run-held run)
            (sort (cons fact (rlm-run-held run))
                  (lambda (a b) (< (plist-get a :seq) (plist-get b :seq))))))))

(defun rlm--run-release (run)
  "Fold in the held facts of RUN whose turn has come."
  (while (and (rlm-run-held run)
              (<= (plist-get (car (rlm-run-held run)) :seq) (rlm-run-next run)))
    (let ((fact (pop (rlm-run-held run))))
      (when (= (plist-get fact :seq) (rlm-run-next run))
        (rlm--run-apply run fact)))))

(defun rlm--run-fetch (run to)
  "Fetch the missing facts of RUN up to number TO."
  (when (and to (>= to (rlm-run-next run)) (not (rlm-run-fetching run)))
    (setf (rlm-run-fetching run) t)
    (rlm-call "run/fetch"
              (list :run_id (rlm-run-id run)
                    :from_seq (rlm-run-next run) :to_seq to)
              :socket (rlm-run-socket run)
              :success
              (lambda (result)
                (setf (rlm-run-fetching run) nil)
                (let ((before (rlm-run-next run)))
                  (seq-doseq (fact (plist-get result :facts))
                    (rlm--run-hold run fact))
                  (rlm--run-release run)
                  (cond ((> (rlm-run-next run) to))
                        ((> (rlm-run-next run) before) (rlm--run-fetch run to))
                        (t (rlm--run-refused
                            run (rlm--error
                                 (format "Fact %d of the run is missing." before)))))))
              :failure
              (lambda (error)
                (setf (rlm-run-fetching run) nil)
                (rlm--run-refused run error)))))

;;;; Streams

(defun rlm--run-text (run name)
  "Return the stream NAME of RUN, new if need be."
  (or (cdr (assoc name (rlm-run-texts run)))
      (let ((text (rlm--text-make :name name)))
        (push (cons name text) (rlm-run-texts run))
        text)))

(defun rlm--text-string (text)
  "Return all of TEXT, an `rlm--text', as one string."
  (let ((string (apply #'concat (reverse (rlm--text-pieces text)))))
    (setf (rlm--text-pieces text) (list string))
    string))

(defun rlm--run-take-delta (run delta)
  "Add DELTA to its stream of RUN."
  (let* ((text (rlm--run-text run (plist-get delta :stream)))
         (piece (or (plist-get delta :text) ""))
         (offset (plist-get delta :offset))
         (length (rlm--text-length text)))
    (unless (or (rlm--text-closed text)
                (not (rlm-run-live-p run)))
      (cond
       ((> offset length) (setf (rlm--text-torn text) t))
       ((< offset length)               ; a retry begins anew
        (setf (rlm--text-pieces text)
              (list piece (substring (rlm--text-string text) 0 offset))
              (rlm--text-length text) (+ offset (length piece))
              (rlm--text-torn text) nil)
        (rlm--run-tell run 'delta (cons text nil)))
       ((not (rlm--text-torn text))
        (push piece (rlm--text-pieces text))
        (cl-incf (rlm--text-length text) (length piece))
        (rlm--run-tell run 'delta (cons text piece)))))))

(defun rlm--run-open-text (run name kind)
  "The stream NAME of RUN is of KIND."
  (when name
    (setf (rlm--text-kind (rlm--run-text run name)) kind)))

(defun rlm--run-close-text (run name)
  "The stream NAME of RUN has its closing fact; a cell's is forgotten."
  (when name
    (let ((text (rlm--run-text run name)))
      (setf (rlm--text-closed text) t)
      (when (eq (rlm--text-kind text) 'cell)
        (setf (rlm--text-pieces text) nil)))))

;;;; Folding facts

(defun rlm--fold-started (run fact)
  "Fold run_started FACT into RUN."
  (setf (rlm-run-state run) 'running
        (rlm-run-strategy run) (plist-get fact :strategy)
        (rlm-run-created run) (or (plist-get fact :time) (rlm-run-created run))
        (rlm-run-turn-limit run) (plist-get (plist-get fact :limits) :turns))
  (unless (rlm-run-question run)
    (let ((text (plist-get fact :question)))
      (setf (rlm-run-question run)
            (or (plist-get text :text) (plist-get text :preview))))))

(defun rlm--fold-strategy (run fact)
  "Fold strategy_chosen FACT into RUN."
  (setf (rlm-run-strategy run) (plist-get fact :strategy)))

(defun rlm--fold-turn (run fact)
  "Fold turn_started FACT into RUN."
  (setf (rlm-run-turn run) (plist-get fact :turn)
        (rlm-run-activity run) "thinking")
  (rlm--run-open-text run (plist-get fact :stream) 'root))

(defun rlm--fold-host (run fact)
  "Note the host of FACT's completion in RUN."
  (when-let ((host (plist-get (plist-get fact :completion) :host)))
    (unless (member host (rlm-run-hosts run))
      (setf (rlm-run-hosts run) (append (rlm-run-hosts run) (list host))))))

(defun rlm--fold-replied (run fact)
  "Fold root_replied FACT into RUN."
  (rlm--fold-host run fact)
  (rlm--run-close-text run (plist-get fact :stream)))

(defun rlm--fold-root-failed (run fact)
  "Fold root_failed FACT into RUN."
  (rlm--run-close-text run (plist-get fact :stream)))

(defun rlm--fold-cell-started (run fact)
  "Fold cell_started FACT into RUN."
  (setf (rlm-run-activity run)
        (if-let ((program (plist-get fact :program)))
            (format "program %s" program)
          "running code"))
  (rlm--run-open-text run (plist-get fact :stream) 'cell))

(defun rlm--fold-cell-ended (run fact)
  "Fold cell_ended FACT into RUN."
  (setf (rlm-run-activity run) nil)
  (rlm--run-close-text run (plist-get fact :stream)))

(defun rlm--fold-batch (run fact)
  "Fold batch_started FACT into RUN."
  (cl-incf (rlm-run-pieces run) (plist-get fact :total)))

(defun rlm--fold-piece (run fact)
  "Fold subquery_replied FACT into RUN."
  (cl-incf (rlm-run-pieces-done run))
  (if (equal "cache" (plist-get (plist-get fact :completion) :source))
      (cl-incf (rlm-run-pieces-cached run))
    (rlm--fold-host run fact)))

(defun rlm--fold-piece-failed (run _fact)
  "Fold a subquery_failed fact into RUN."
  (cl-incf (rlm-run-pieces-done run))
  (cl-incf (rlm-run-pieces-failed run)))

(defun rlm--fold-note (run fact)
  "Fold note FACT into RUN."
  (push (plist-get fact :text) (rlm-run-notes run)))

(defun rlm--fold-limit (run fact)
  "Fold limit_hit FACT into RUN."
  (push (format "Limit reached: %s." (plist-get fact :why)) (rlm-run-notes run)))

(defun rlm--fold-cancel (run _fact)
  "Fold a cancel_requested fact into RUN."
  (setf (rlm-run-activity run) "cancelling"))

(defun rlm--fold-interrupted (run fact)
  "Fold run_interrupted FACT into RUN."
  (setf (rlm-run-why run) (plist-get fact :why))
  (rlm--run-over run 'interrupted))

(defun rlm--fold-ended (run fact)
  "Fold run_ended FACT into RUN; fetch the answer if it is long."
  (let ((answer (plist-get fact :answer))
        (outcome (plist-get fact :outcome)))
    (setf (rlm-run-outcome run) outcome
          (rlm-run-why run) (plist-get fact :why)
          (rlm-run-citations run) (append (plist-get fact :citations) nil)
          (rlm-run-receipt run) (plist-get fact :receipt)
          (rlm-run-answer-stream run) (plist-get fact :stream)
          (rlm-run-activity run) nil)
    (when-let ((error (plist-get fact :error)))
      (setf (rlm-run-error run)
            (list :code (plist-get error :code) :kind (plist-get error :kind)
                  :message (plist-get error :message) :hint (plist-get error :hint))))
    (rlm--run-value
     run answer
     (lambda (text)
       (setf (rlm-run-answer run) text)
       (rlm--run-over run (pcase outcome
                            ("failed" 'failed)
                            ("cancelled" 'cancelled)
                            (_ 'ended)))))))

(defconst rlm--page-chars 1000000
  "Characters of a long value that are fetched at once.")

(defun rlm--run-value (run text callback &optional start sofar)
  "Call CALLBACK with the string that TEXT, a plist of RUN, stands for.
Long ones are fetched in pages: START is where the next begins,
SOFAR the list of those that came, last first."
  (if (or (null text) (plist-get text :text) (null (plist-get text :digest)))
      (funcall callback (or (plist-get text :text) (plist-get text :preview) ""))
    (let ((start (or start 0)))
      (rlm-call "run/fetch"
                (list :run_id (rlm-run-id run) :digest (plist-get text :digest)
                      :start start :chars rlm--page-chars)
                :socket (rlm-run-socket run)
                :success
                (lambda (result)
                  (let* ((page (or (plist-get result :text) ""))
                         (next (+ start (length page)))
                         (pages (cons page sofar)))
                    (if (and (< next (plist-get text :chars))
                             (not (string-empty-p page)))
                        (rlm--run-value run text callback next pages)
                      (funcall callback (apply #'concat (nreverse pages))))))
                :failure
                (lambda (error)
                  (push (format "Only the beginning is here: %s"
                                (rlm-error-text error))
                        (rlm-run-notes run))
                  (funcall callback (or (plist-get text :preview) "")))))))

(defconst rlm--folds
  '(("run_started" . rlm--fold-started)
    ("strategy_chosen" . rlm--fold-strategy)
    ("turn_started" . rlm--fold-turn)
    ("root_replied" . rlm--fold-replied)
    ("root_failed" . rlm--fold-root-failed)
    ("cell_started" . rlm--fold-cell-started)
    ("cell_ended" . rlm--fold-cell-ended)
    ("batch_started" . rlm--fold-batch)
    ("subquery_replied" . rlm--fold-piece)
    ("subquery_failed" . rlm--fold-piece-failed)
    ("note" . rlm--fold-note)
    ("limit_hit" . rlm--fold-limit)
    ("cancel_requested" . rlm--fold-cancel)
    ("run_interrupted" . rlm--fold-interrupted)
    ("run_ended" . rlm--fold-ended))
  "What each type of fact does to a run; other types do nothing.")

(defun rlm--run-apply (run fact)
  "Fold FACT, the next one, into RUN and tell the observers."
  (setf (rlm-run-next run) (1+ (plist-get fact :seq)))
  (let ((fold (cdr (assoc (plist-get fact :type) rlm--folds))))
    (when fold
      (rlm--guarded fold run fact)))
  (rlm--run-tell run 'fact fact))

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
    (mapc #'rlm--run-lost (rlm--runs-at socket link))))

(defun rlm--runs-found (socket)
  "SOCKET is connected again: follow the runs that were lost."
  (mapc #'rlm-run-attach (rlm--runs-at socket 'lost)))

(add-hook 'rlm--disconnect-functions #'rlm--runs-lost)
(add-hook 'rlm--connect-functions #'rlm--runs-found)

(provide 'rlm-run)
;;; rlm-run.el ends here
