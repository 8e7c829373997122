;;; rlm-fold-test.el --- Facts and deltas, in any order -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A scripted server sends what a slow reader, a dropped connection or
;; a retry on another host would make of a run's messages.

;;; Code:

(require 'rlm-test)

(defconst rlm-test-id "01234567-89ab-4cde-8f01-23456789abcd"
  "The id of the run that these tests tell of.")

(defvar rlm-test-events nil
  "What the observer was told, last first.")

(defun rlm-test-run ()
  "Return a run that is attached to the scripted server."
  (setq rlm-test-events nil)
  (let ((run (rlm--run-make :id rlm-test-id :socket (rlm-socket-path) :question "Q"
                            :link 'attached :state 'running)))
    (rlm--run-observe run (lambda (_run event data)
                            (push (cons event (if (eq event 'fact)
                                                  (plist-get data :seq)
                                                (and (consp data) (cdr data))))
                                  rlm-test-events)))
    (puthash rlm-test-id run rlm--runs)))

(defun rlm-test-fact (seq type &rest members)
  "Return fact SEQ of TYPE with MEMBERS, as a message."
  (apply #'rlm-test-notification "run/fact"
         :run_id rlm-test-id :seq seq :time 1.0 :type type members))

(defun rlm-test-delta (stream offset text)
  "Return the delta TEXT at OFFSET of STREAM, as a message."
  (rlm-test-notification "run/delta" :run_id rlm-test-id
                         :stream stream :offset offset :text text))

(defun rlm-test-note (seq)
  "Return a note with number SEQ as the fact itself."
  (list :run_id rlm-test-id :seq seq :time 1.0 :type "note" :text (format "note %d" seq)))

(defun rlm-test-seqs ()
  "Return the numbers of the facts that the observer was told, in order."
  (reverse (delq nil (mapcar (lambda (event) (and (eq 'fact (car event)) (cdr event)))
                             rlm-test-events))))

(defconst rlm-test-receipt '(:summary "Read all of it." :wall_seconds 1.5)
  "A receipt, as far as it matters here.")

(defun rlm-test-ended (seq answer &rest members)
  "Return fact SEQ that ends the run with ANSWER and MEMBERS."
  (apply #'rlm-test-fact seq "run_ended" :outcome "answered"
         :answer (list :chars (length answer) :text answer)
         :stream nil :why "" :receipt rlm-test-receipt members))

;;;; Order

(ert-deftest rlm-fold-facts-in-order-once ()
  "Facts that come late, early and twice are told once each, in order."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-answer "run/fetch" '(:facts []))
      (cl-letf (((symbol-function 'rlm--run-fetch) #'ignore))
        (rlm-test-say (mapcar (lambda (seq) (rlm-test-fact seq "note" :text "x"))
                              '(1 3 5 4 1 3 2 6 6 2 7))
                      '("reply")))
      (rlm-test-await (= 8 (rlm-run-next run)))
      (should (equal '(1 2 3 4 5 6 7) (rlm-test-seqs)))
      (should-not (rlm-run-held run)))))

(ert-deftest rlm-fold-missing-facts-are-fetched ()
  "A gap is asked for, however many answers it takes, and then all goes on."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-answer "run/fetch" (list :facts (vconcat (mapcar #'rlm-test-note '(2 3)))))
      (rlm-test-answer "run/fetch" (list :facts (vconcat (mapcar #'rlm-test-note '(4 5)))))
      (rlm-test-say (list (rlm-test-fact 1 "note" :text "x")
                          (rlm-test-fact 6 "note" :text "x") "reply"))
      (rlm-test-await (= 7 (rlm-run-next run)))
      (should (equal '(1 2 3 4 5 6) (rlm-test-seqs)))
      (should (equal '((2 5) (4 5))
                     (mapcar (lambda (params) (list (plist-get params :from_seq)
                                                    (plist-get params :to_seq)))
                             (rlm-test-seen "run/fetch")))))))

(ert-deftest rlm-fold-a-gap-that-is-told-is-fetched ()
  "The notification run/gap says up to where facts were not sent."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-answer "run/fetch" (list :facts (vconcat (mapcar #'rlm-test-note '(1 2 3)))))
      (rlm-test-say (list (rlm-test-notification "run/gap" :run_id rlm-test-id
                                                 :from_seq 1 :to_seq 3)
                          "reply"))
      (rlm-test-await (= 4 (rlm-run-next run)))
      (should (equal '(1 2 3) (rlm-test-seqs))))))

(ert-deftest rlm-fold-a-fact-that-cannot-be-had-fails-the-run ()
  "A gap that the daemon cannot fill is an error, not a wait without end."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-answer "run/fetch" '(:facts []))
      (rlm-test-say (list (rlm-test-fact 4 "note" :text "x") "reply"))
      (rlm-test-await (eq 'failed (rlm-run-state run)))
      (should (string-match-p "Fact 1" (rlm-error-text (rlm-run-error run)))))))

(ert-deftest rlm-fold-strangers-are-passed-over ()
  "Unknown types, members, runs and notifications do no harm."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-say (list (rlm-test-fact 1 "of_the_future" :what '(:ever 1))
                          (rlm-test-notification "run/fact" :run_id "other" :seq 1 :type "note")
                          (rlm-test-notification "host/state" :name "m40")
                          (rlm-test-fact 2 "note" :text "x" :new [1 2])
                          "reply"))
      (rlm-test-await (= 3 (rlm-run-next run)))
      (should (equal '(1 2) (rlm-test-seqs))) ; a trace shows what it does not know
      (should (equal '("x") (rlm-run-notes run))))))

;;;; Streams

(defun rlm-test-text (run stream)
  "Return what RUN has of STREAM."
  (rlm--text-string (cdr (assoc stream (rlm-run-texts run)))))

(ert-deftest rlm-fold-deltas-add-up ()
  "Deltas that follow on another are told as they come."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-say (list (rlm-test-delta "s" 0 "żó") (rlm-test-delta "s" 2 "łw 🐢")
                          (rlm-test-delta "t" 0 "other") (rlm-test-delta "s" 6 "!")
                          "reply"))
      (rlm-test-await (= 4 (length rlm-test-events)))
      (should (equal "żółw 🐢!" (rlm-test-text run "s")))
      (should (equal '("żó" "łw 🐢" "other" "!") (mapcar #'cdr (reverse rlm-test-events)))))))

(ert-deftest rlm-fold-a-retry-begins-anew ()
  "A delta that goes back replaces what stood there."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-say (list (rlm-test-delta "s" 0 "first try") (rlm-test-delta "s" 0 "second")
                          (rlm-test-delta "s" 6 " try") (rlm-test-delta "s" 7 "TRY")
                          "reply"))
      (rlm-test-await (= 4 (length rlm-test-events)))
      (should (equal "second TRY" (rlm-test-text run "s")))
      (should (equal '("first try" nil " try" nil) (mapcar #'cdr (reverse rlm-test-events)))))))

(ert-deftest rlm-fold-a-hole-is-not-papered-over ()
  "After a lost delta nothing more is shown of the stream, until it begins anew."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-say (list (rlm-test-delta "s" 0 "abc") (rlm-test-delta "s" 5 "fgh")
                          (rlm-test-delta "s" 8 "ijk") "reply"))
      (rlm-test-say '("reply"))
      (should (equal "abc" (rlm-test-text run "s")))
      (rlm-test-say (list (rlm-test-delta "s" 0 "new") "reply"))
      (rlm-test-await (equal "new" (rlm-test-text run "s"))))))

;;;; What facts do

(ert-deftest rlm-fold-progress-is-counted ()
  "Turns, pieces, cached and failed ones, hosts: as the facts tell."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-say
       (list (rlm-test-fact 1 "run_started" :strategy "auto" :question '(:chars 1 :text "Q")
                            :limits '(:turns 30))
             (rlm-test-fact 2 "strategy_chosen" :strategy "rlm" :why "large")
             (rlm-test-fact 3 "turn_started" :turn 1 :stream "turn-1")
             (rlm-test-fact 4 "root_replied" :turn 1 :stream "turn-1"
                            :completion '(:host "rtx" :source "model"))
             (rlm-test-fact 5 "cell_started" :turn 1 :cell 1 :stream "cell-1")
             (rlm-test-fact 6 "batch_started" :cell 1 :batch 1 :total 5)
             (rlm-test-fact 7 "subquery_replied" :completion '(:host "m40" :source "model"))
             (rlm-test-fact 8 "subquery_replied" :completion '(:host "m40" :source "cache"))
             (rlm-test-fact 9 "subquery_failed" :error '(:message "x"))
             (rlm-test-fact 10 "child_ended" :outcome "answered")
             (rlm-test-fact 11 "child_ended" :outcome "none")
             "reply"))
      (rlm-test-await (= 12 (rlm-run-next run)))
      (should (equal (list "rlm" 1 30 5 5 1 2 '("rtx" "m40") "running code")
                     (list (rlm-run-strategy run) (rlm-run-turn run)
                           (rlm-run-turn-limit run) (rlm-run-pieces run)
                           (rlm-run-pieces-done run) (rlm-run-pieces-cached run)
                           (rlm-run-pieces-failed run) (rlm-run-hosts run)
                           (rlm-run-activity run)))))))

(ert-deftest rlm-fold-a-long-answer-is-fetched-in-pages ()
  "An answer that is named by digest is over when all of it is here."
  (rlm-test-with-server
    (let ((run (rlm-test-run))
          (rlm--page-chars 4))
      (dolist (page '("abcd" "efgh" "ij"))
        (rlm-test-answer "run/fetch" (list :text page :chars 10)))
      (rlm-test-say (list (rlm-test-fact 1 "run_ended" :outcome "answered" :stream nil
                                         :answer '(:chars 10 :digest "d" :preview "ab")
                                         :why "" :receipt rlm-test-receipt)
                          "reply"))
      (rlm-wait run rlm-test-patience)
      (should (equal "abcdefghij" (rlm-run-answer run)))
      (should (equal '(0 4 8) (mapcar (lambda (params) (plist-get params :start))
                                      (rlm-test-seen "run/fetch")))))))

(defun rlm-test-told-then-ended (run told answer &optional offset)
  "Have TOLD come to RUN as deltas at OFFSET, then an end with the long ANSWER."
  (rlm-test-say (list (rlm-test-delta "s" 0 (substring told 0 3))
                      (rlm-test-delta "s" (or offset 3) (substring told 3))
                      (rlm-test-fact 1 "run_ended" :outcome "answered" :stream "s"
                                     :answer (list :chars (length answer) :preview "ab"
                                                   :digest (secure-hash 'sha256 (encode-coding-string answer 'utf-8)))
                                     :why "" :receipt rlm-test-receipt)
                      "reply"))
  (rlm-wait run rlm-test-patience)
  (cons (rlm-run-answer run) (length (rlm-test-seen "run/fetch"))))

(ert-deftest rlm-fold-a-long-answer-that-was-told-is-not-fetched ()
  "What the deltas brought whole is the answer, if it has the digest of that."
  (rlm-test-with-server
    (rlm-test-answer "run/fetch" '(:text "fetched" :chars 7))
    (should (equal '("żółwie" . 0) (rlm-test-told-then-ended (rlm-test-run) "żółwie" "żółwie")))))

(ert-deftest rlm-fold-a-long-answer-that-was-told-otherwise-is-fetched ()
  "Deltas that are no more than as long as the answer are not taken for it."
  (rlm-test-with-server
    (rlm-test-answer "run/fetch" '(:text "fetched" :chars 7))
    (should (equal '("fetched" . 1) (rlm-test-told-then-ended (rlm-test-run) "fetCHed" "fetched")))))

(ert-deftest rlm-fold-a-long-answer-with-a-hole-is-fetched ()
  "Of deltas with a hole among them nothing is taken for the answer."
  (rlm-test-with-server
    (rlm-test-answer "run/fetch" '(:text "fetched" :chars 7))
    (should (equal '("fetched" . 1) (rlm-test-told-then-ended (rlm-test-run) "fetched" "fetched" 4)))))

(ert-deftest rlm-fold-an-end-is-told-once-and-last ()
  "The callback gets the run with answer, citations and receipt, once."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-say (list (rlm-test-ended 1 "forty-two" :citations
                                          [(:number 1 :quote "q" :verified t)])
                          (rlm-test-ended 1 "again")
                          "reply"))
      (rlm-wait run rlm-test-patience)
      (rlm-test-say '("reply"))
      (should (equal "forty-two" (rlm-run-answer run)))
      (should (eq 'ended (rlm-run-state run)))
      (should (= 1 (length (rlm-run-citations run))))
      (should (equal 1 (seq-count (lambda (event) (eq 'ended (car event))) rlm-test-events))))))

;;;; Lost and found

(ert-deftest rlm-fold-a-lost-run-is-followed-from-where-it-was ()
  "After a lost connection the next one attaches from the first fact not seen."
  (rlm-test-with-server
    (let ((run (rlm-test-run)))
      (rlm-test-answer "run/attach" '(:run_id "x" :state "running" :last_seq 2))
      (rlm-test-say (list (rlm-test-fact 1 "note" :text "x") (rlm-test-fact 2 "note" :text "y")
                          "reply"))
      (rlm-test-await (= 3 (rlm-run-next run)))
      (rlm-call "test/die" nil :failure #'ignore)
      (rlm-test-await (eq 'lost (rlm-run-link run)))
      (should (rlm-run-live-p run))
      (rlm-call-sync "test/big" '(:chars 1))
      (rlm-test-await (eq 'attached (rlm-run-link run)))
      (should (equal '(3) (mapcar (lambda (params) (plist-get params :from_seq))
                                  (rlm-test-seen "run/attach")))))))

(ert-deftest rlm-fold-a-question-lost-on-its-way-is-asked-again ()
  "If the daemon never got the question, attaching asks it anew, with the same id."
  (rlm-test-with-server
    (let* ((begun nil)
           (run (rlm-test-run)))
      (setf (rlm-run-begin run) (lambda (run) (setq begun run))
            (rlm-run-link run) 'lost)
      (rlm-test-answer "run/attach" '(:code 1001 :message "No such run." :data (:hint "")))
      (rlm-run-attach run)
      (rlm-test-await begun)
      (should (eq begun run)))))

(provide 'rlm-fold-test)
;;; rlm-fold-test.el ends here
