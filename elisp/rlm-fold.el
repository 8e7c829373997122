;;; rlm-fold.el --- Take in what the daemon tells of runs -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Facts are numbered from 1.  They are folded into their `rlm-run' in
;; order and without a gap: one that comes early is held back, those
;; that are missing are fetched.  Deltas belong to a stream and name
;; the offset at which they stand; one that goes back means that the
;; daemon began anew on another host, one that leaves a hole leaves
;; the stream torn until the fact that closes it.
;;
;; What each type of fact does is a table, `rlm--folds'.  Types and
;; members that are not known are passed over.

;;; Code:

(require 'rlm-run)
(require 'cl-lib)
(require 'seq)

;;;; What the daemon sends

(defun rlm--run-notified (socket method params)
  "Take the notification METHOD with PARAMS from SOCKET."
  (let ((run (rlm-run-find (plist-get params :run_id))))
    (when (and run (equal socket (rlm-run-socket run)))
      (setf (rlm-run-heard run) (float-time)
            (rlm-run-queue run) nil)
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
                            run (rlm--problem
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

(defun rlm--fold-estimated (run fact)
  "Fold estimated FACT into RUN, which waits for an answer if that asks."
  (when (rlm--true-p (plist-get fact :asks))
    (setf (rlm-run-asks run) fact
          (rlm-run-activity run) nil)
    (rlm--fold-state run)))

(defun rlm--fold-confirmed (run _fact)
  "Fold a confirmed fact into RUN, whose question is answered."
  (setf (rlm-run-asks run) nil)
  (rlm--fold-state run))

(defun rlm--fold-waiting (run fact)
  "Fold waiting FACT into RUN: no host that may serve it takes work now."
  (setf (rlm-run-waits run) fact
        (rlm-run-activity run) nil)
  (rlm--fold-state run))

(defun rlm--fold-went-on (run _fact)
  "Fold a went_on fact into RUN: a host has come, or the time is over."
  (setf (rlm-run-waits run) nil
        (rlm-run-activity run) "thinking")
  (rlm--fold-state run))

(defun rlm--fold-state (run)
  "Set the state of RUN, which goes on, by what holds it up, if anything does."
  (setf (rlm-run-state run) (cond ((rlm-run-asks run) 'asking)
                                  ((rlm-run-waits run) 'waiting)
                                  (t 'running))))

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

(defun rlm--fold-tokens (run fact)
  "Add what FACT's completion took to what RUN has used."
  (let ((completion (plist-get fact :completion)))
    (when (equal "model" (plist-get completion :source))
      (cl-incf (rlm-run-tokens-sent run) (or (plist-get completion :prompt_tokens) 0))
      (cl-incf (rlm-run-tokens-got run) (or (plist-get completion :completion_tokens) 0))
      (cl-incf (rlm-run-money run) (or (plist-get completion :money) 0))
      (cl-incf (rlm-run-energy run) (or (plist-get completion :energy) 0))
      (cl-incf (rlm-run-energy-cost run) (or (plist-get completion :energy_cost) 0)))))

(defun rlm--fold-replied (run fact)
  "Fold root_replied FACT into RUN."
  (rlm--fold-host run fact)
  (rlm--fold-tokens run fact)
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
  (unless (rlm-run-pieces-since run)
    (setf (rlm-run-pieces-since run) (or (plist-get fact :time) (float-time))))
  (cl-incf (rlm-run-pieces run) (plist-get fact :total)))

(defun rlm--fold-piece (run fact)
  "Fold subquery_replied FACT into RUN."
  (cl-incf (rlm-run-pieces-done run))
  (if (equal "cache" (plist-get (plist-get fact :completion) :source))
      (cl-incf (rlm-run-pieces-cached run))
    (rlm--fold-host run fact)
    (rlm--fold-tokens run fact)))

(defun rlm--fold-piece-failed (run _fact)
  "Fold a subquery_failed fact into RUN."
  (cl-incf (rlm-run-pieces-done run))
  (cl-incf (rlm-run-pieces-failed run)))

(defun rlm--fold-child-ended (run fact)
  "Fold child_ended FACT into RUN: a run below it, which a cell asked, is over."
  (cl-incf (rlm-run-pieces-done run))
  (unless (equal "answered" (plist-get fact :outcome))
    (cl-incf (rlm-run-pieces-failed run))))

(defun rlm--fold-note (run fact)
  "Fold note FACT into RUN."
  (push (plist-get fact :text) (rlm-run-notes run)))

(defun rlm--fold-limit (run fact)
  "Fold limit_hit FACT into RUN."
  (push (format "Limit reached: %s." (string-trim-right (plist-get fact :why) "[.]+"))
        (rlm-run-notes run)))

(defun rlm--fold-cancel (run _fact)
  "Fold a cancel_requested fact into RUN."
  (setf (rlm-run-activity run) "cancelling"))

(defun rlm--fold-interrupted (run fact)
  "Fold run_interrupted FACT into RUN."
  (setf (rlm-run-why run) (plist-get fact :why))
  (rlm--run-over run 'interrupted))

(defun rlm--fold-resumed (run _fact)
  "Fold a run_resumed fact into RUN: the next daemon goes on with it."
  (setf (rlm-run-state run) 'running
        (rlm-run-link run) 'attached
        (rlm-run-why run) nil
        (rlm-run-ended run) nil
        (rlm-run-activity run) "taken up again"))

(defun rlm--fold-continued (run fact)
  "Fold run_continued FACT into RUN, which is not over after all."
  (setf (rlm-run-state run) 'running
        (rlm-run-link run) 'attached
        (rlm-run-ending run) nil
        (rlm-run-outcome run) nil
        (rlm-run-answer run) nil
        (rlm-run-citations run) nil
        (rlm-run-marks run) nil
        (rlm-run-receipt run) nil
        (rlm-run-why run) nil
        (rlm-run-error run) nil
        (rlm-run-ended run) nil
        (rlm-run-turn-limit run) (plist-get (plist-get fact :limits) :turns)
        (rlm-run-notes run) (seq-remove (lambda (note) (string-prefix-p "Limit reached: " note))
                                        (rlm-run-notes run))
        (rlm-run-activity run) "goes on"))

(defun rlm--fold-ended (run fact)
  "Fold run_ended FACT into RUN; fetch the answer if it is long."
  (let ((outcome (plist-get fact :outcome)))
    (setf (rlm-run-ending run) fact
          (rlm-run-outcome run) outcome
          (rlm-run-why run) (plist-get fact :why)
          (rlm-run-citations run) (append (plist-get fact :citations) nil)
          (rlm-run-receipt run) (plist-get fact :receipt)
          (rlm-run-asks run) nil
          (rlm-run-waits run) nil
          (rlm-run-answer-stream run) (plist-get fact :stream)
          (rlm-run-activity run) nil)
    ;; The receipt counts children and failed attempts too.
    (when-let ((money (plist-get (rlm-run-receipt run) :money)))
      (setf (rlm-run-money run) money))
    (when-let ((energy (plist-get (rlm-run-receipt run) :energy)))
      (setf (rlm-run-energy run) energy))
    (when-let ((cost (plist-get (rlm-run-receipt run) :energy_cost)))
      (setf (rlm-run-energy-cost run) cost))
    (when-let ((error (plist-get fact :error)))
      (setf (rlm-run-error run)
            (list :code (plist-get error :code) :kind (plist-get error :kind)
                  :message (plist-get error :message) :hint (plist-get error :hint))))
    (rlm--run-told
     run fact
     (lambda (answer)
       (rlm--run-value
        run answer
        (lambda (text)
          ;; While a long answer was fetched the run may have been continued.
          (when (eq fact (rlm-run-ending run))
            (setf (rlm-run-answer run) text)
            (rlm--run-over run (pcase outcome
                                 ("failed" 'failed)
                                 ("cancelled" 'cancelled)
                                 (_ 'ended))))))))))

(defconst rlm--breath 0.005
  "Seconds in which keys are served between two long steps.")

(defun rlm--run-told (run fact callback)
  "Call CALLBACK with the answer of FACT, which ends RUN, as a text.
A long one that a stream has brought whole is here, and need not be
fetched.  Each step on a megabyte makes garbage for one collection, so
they come one by one."
  (let* ((answer (plist-get fact :answer))
         (digest (plist-get answer :digest))
         (text (cdr (assoc (plist-get fact :stream) (rlm-run-texts run)))))
    (if (not (and text digest
                  (not (rlm--text-torn text))
                  (= (rlm--text-length text) (plist-get answer :chars))))
        (funcall callback answer)
      (rlm--soon
       (lambda ()
         (let ((string (rlm--text-string text)))
           (rlm--soon
            (lambda ()
              (funcall callback
                       (if (equal digest (secure-hash 'sha256 (encode-coding-string
                                                               string 'utf-8-unix)))
                           (list :text string)
                         answer))))))))))

(defun rlm--soon (function)
  "Call FUNCTION when keys that were typed have been served."
  (run-at-time rlm--breath nil #'rlm--guarded function))

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
    ("estimated" . rlm--fold-estimated)
    ("confirmed" . rlm--fold-confirmed)
    ("waiting" . rlm--fold-waiting)
    ("went_on" . rlm--fold-went-on)
    ("turn_started" . rlm--fold-turn)
    ("root_replied" . rlm--fold-replied)
    ("root_failed" . rlm--fold-root-failed)
    ("cell_started" . rlm--fold-cell-started)
    ("cell_ended" . rlm--fold-cell-ended)
    ("batch_started" . rlm--fold-batch)
    ("subquery_replied" . rlm--fold-piece)
    ("subquery_failed" . rlm--fold-piece-failed)
    ("child_ended" . rlm--fold-child-ended)
    ("note" . rlm--fold-note)
    ("limit_hit" . rlm--fold-limit)
    ("cancel_requested" . rlm--fold-cancel)
    ("run_interrupted" . rlm--fold-interrupted)
    ("run_resumed" . rlm--fold-resumed)
    ("run_continued" . rlm--fold-continued)
    ("run_ended" . rlm--fold-ended))
  "What each type of fact does to a run; other types do nothing.")

(defun rlm--run-apply (run fact)
  "Fold FACT, the next one, into RUN and tell the observers."
  (setf (rlm-run-next run) (1+ (plist-get fact :seq)))
  (let ((fold (cdr (assoc (plist-get fact :type) rlm--folds))))
    (when fold
      (rlm--guarded fold run fact)))
  (rlm--run-tell run 'fact fact))

(provide 'rlm-fold)
;;; rlm-fold.el ends here
