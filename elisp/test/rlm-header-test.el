;;; rlm-header-test.el --- What a run costs, waits for and asks -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A scripted server tells of a run; the header line of its answer
;; buffer is read, and what is answered is looked up at the server.

;;; Code:

(require 'rlm-test)
(require 'rlm-status)

(defconst rlm-test-id "01234567-89ab-4cde-8f01-23456789abcd"
  "The id of the run that these tests tell of.")

(defmacro rlm-test-with-answer (&rest body)
  "Run BODY in the answer buffer of a run of the scripted server."
  (declare (indent 0) (debug t))
  `(rlm-test-with-server
     (let ((run (rlm--run-make :id rlm-test-id :socket (rlm-socket-path) :question "Q"
                               :link 'attached :state 'running)))
       (puthash rlm-test-id run rlm--runs)
       (rlm-call-sync "test/seen" nil)
       (with-current-buffer (rlm--answer-make run)
         ,@body))))

(defun rlm-test-tell (seq type &rest members)
  "Have the server send fact SEQ of TYPE with MEMBERS, and wait for it."
  (rlm-test-say (list (apply #'rlm-test-notification "run/fact" :run_id rlm-test-id :seq seq
                             :time (plist-get members :time) :type type members)
                      "reply"))
  (rlm-test-await (> (rlm-run-next (rlm-run-find rlm-test-id)) seq)))

(defconst rlm-test-question
  '(:time 1 :what "map" :asks t :why "This would ask 400 pieces, about 20 min." :alternatives ["direct"]
    :estimate (:requests 400 :chars 1000000 :seconds 1200 :money 1.5 :energy 0))
  "What an estimated fact says that asks.")

(defun rlm-test-answering (key)
  "Answer the question of the current buffer's run by KEY; return what was sent."
  (cl-letf (((symbol-function 'read-char-choice)
             (lambda (_prompt keys) (should (memq key keys)) key)))
    (call-interactively (key-binding (kbd "C-c C-y"))))
  (rlm-test-await (rlm-test-seen "run/confirm"))
  (car (last (rlm-test-seen "run/confirm"))))

(ert-deftest rlm-header-a-run-that-asks-is-answered-when-one-likes ()
  "The question stands in the header and nobody waits; y, n and other ways answer it."
  (pcase-dolist (`(,key ,choice ,strategy) '((?y "accept" nil) (?n "refuse" nil) (?d "accept" "direct")))
    (rlm-test-with-answer
      (rlm-test-answer "run/confirm" '(:run_id "x"))
      (apply #'rlm-test-tell 1 "estimated" rlm-test-question)
      (should (eq 'asking (rlm-run-state run)))
      (should (rlm-run-live-p run))
      (should (string-match-p "asks: This would ask 400 pieces, about 20 min\\." (rlm--header-line)))
      (should (string-match-p "\\[answer it\\].*C-c C-y answers" (rlm--header-line)))
      (let ((sent (rlm-test-answering key)))
        (should (equal (list rlm-test-id choice strategy)
                       (list (plist-get sent :run_id) (plist-get sent :choice) (plist-get sent :strategy)))))
      (rlm-test-tell 2 "confirmed" :time 2 :accepted t)
      (should (eq 'running (rlm-run-state run)))
      (should-not (string-match-p "asks" (rlm--header-line)))
      (should-error (rlm-confirm run) :type 'user-error))))

(ert-deftest rlm-header-the-daemon-asks-and-is-answered ()
  "A run of more sub-queries than may be asked unasked waits; y lets it go on, n ends it."
  (pcase-dolist (`(,key ,outcome) '((?y "answered") (?n "none")))
    (rlm-test-with-home
      (rlm-test-model-server :rules '((".*" . "yes")))
      (write-region "\n[confirm]\nsub_queries = 2\n" nil
                    (expand-file-name "rlmd/config.toml" (getenv "XDG_CONFIG_HOME")) t 'silent)
      (rlm-test-daemon)
      (rlm-test-with-notes (apply #'concat (make-list 8000 "a line of text that is long enough to be cut\n\n"))
        (let* ((rlm-strategy "map")
               (buffer (rlm-test-ask "Any?"))
               (run (rlm-test-run-of buffer)))
          (rlm-test-await (rlm-run-asks run))
          (should (equal "asking" (rlm-test-state run)))
          (cl-letf (((symbol-function 'read-char-choice) (lambda (&rest _) key)))
            (with-current-buffer buffer
              (call-interactively (key-binding (kbd "C-c C-y")))))
          (rlm-test-complete buffer)
          (should (equal outcome (rlm-run-outcome run))))))))

(ert-deftest rlm-header-an-estimate-that-does-not-ask-asks-nothing ()
  "It is told, and the run goes on; a question without words is put into words."
  (rlm-test-with-answer
    (apply #'rlm-test-tell 1 "estimated" (plist-put (copy-sequence rlm-test-question) :asks :json-false))
    (should-not (rlm-run-asks run))
    (should (eq 'running (rlm-run-state run)))
    (apply #'rlm-test-tell 2 "estimated" (plist-put (copy-sequence rlm-test-question) :why ""))
    (should (string-match-p "asks: 400 requests, about 20:00 min, up to \\$1\\.50; go on\\?" (rlm--header-line)))))

(ert-deftest rlm-header-money-energy-and-time-left ()
  "What completions cost is added up; the receipt has the last word; time left from the pieces told."
  (rlm-test-with-answer
    (rlm-test-tell 1 "batch_started" :time (- (float-time) 40) :cell 1 :batch 1 :total 400)
    (should-not (string-match-p "\\$\\|Wh\\|left" (rlm--header-line)))
    (dotimes (n 4)
      (rlm-test-tell (+ 2 n) "subquery_replied" :time 1
                     :completion '(:source "model" :host "box" :prompt_tokens 10 :completion_tokens 1
                                   :money 0.003 :energy 0.4 :energy_cost 0.002)))
    (should (string-match-p "\\$0\\.0120 1\\.6 Wh (\\$0\\.0080)" (rlm--header-line)))
    (should (string-match-p "1 h left\\|6[0-9]:[0-9]+ min left" (rlm--header-line)))
    (rlm-test-tell 6 "run_ended" :time 2 :outcome "answered" :answer '(:chars 2 :text "A.") :why ""
                   :receipt '(:summary "All." :wall_seconds 1 :money 2.5 :energy 7.25
                              :energy_cost 0.25))
    (should (string-match-p "\\$2\\.50 7\\.[23] Wh (\\$0\\.25)" (rlm--header-line)))
    (should-not (string-match-p "left" (rlm--header-line)))))

(ert-deftest rlm-header-why-a-model-says-nothing ()
  "When no word comes for a while the hosts are asked, and the header says what is waited for."
  (rlm-test-with-answer
    (rlm-test-answer "host/list" '(:queued 4 :drain 90 :hosts []))
    (rlm-test-answer "host/list" '(:queued 0 :hosts [(:name "m40" :slots_used 1 :provider "ollama" :resident ["a"])
                                                     (:name "rtx" :slots_used 0 :provider "ollama" :resident [])]))
    (rlm-test-answer "host/list" '(:queued 0 :hosts [(:name "m40" :slots_used 1 :provider "ollama" :resident [])
                                                     (:name "rtx" :slots_used 1 :provider "openai" :resident [])]))
    (rlm-test-answer "host/list" '(:queued 0 :hosts [(:name "m40" :slots_used 1 :provider "ollama" :resident []
                                                      :loading nil)
                                                     (:name "rtx" :slots_used 1 :provider "ollama" :resident ["a"]
                                                      :loading "b")]))
    (rlm-test-tell 1 "turn_started" :time 1 :turn 1 :stream "r1")
    (rlm--queue-look run)
    (should-not (rlm-test-seen "host/list"))   ; it was heard of just now
    (let ((rlm--queue-patience -1))
      (rlm--queue-look run)
      (rlm-test-await (rlm-run-queue run))
      (should (string-match-p "4 queued, about 1:30 min" (rlm--header-line)))
      (rlm--queue-look run)
      (rlm-test-await (equal "waiting for m40" (rlm-run-queue run)))
      (rlm--queue-look run)
      (rlm-test-await (equal "loading on m40" (rlm-run-queue run)))  ; as a daemon of 0.1.0 tells it
      (rlm--queue-look run)
      (rlm-test-await (equal "loading on rtx" (rlm-run-queue run)))
      (rlm-test-say (list (rlm-test-notification "run/delta" :run_id rlm-test-id :stream "r1" :offset 0 :text "word")
                          "reply"))
      (rlm-test-await (null (rlm-run-queue run)))
      (rlm--queue-look run)
      (should (= 4 (length (rlm-test-seen "host/list")))))))

(ert-deftest rlm-header-a-run-that-waits-for-a-host ()
  "Why it waits and until when stands in the header; it can be cancelled; then it goes on."
  (rlm-test-with-answer
    (rlm-test-tell 1 "waiting" :time 1 :why "No host that may answer takes work now: m40 (asleep)." :hosts []
                   :until (float-time (encode-time 0 30 14 1 1 2026)))
    (should (eq 'waiting (rlm-run-state run)))
    (should (rlm-run-live-p run))
    (should (string-match-p "waits: No host that may answer takes work now: m40 (asleep); until 14:30 · .*\\[cancel\\]"
                            (rlm--header-line)))
    (rlm-test-tell 2 "estimated" :time 1 :asks t :why "Long." :estimate '(:requests 1))
    (should (eq 'asking (rlm-run-state run)))
    (rlm-test-tell 3 "went_on" :time 1 :came t)
    (should (eq 'asking (rlm-run-state run)))
    (rlm-test-tell 4 "confirmed" :time 1 :choice "accept")
    (should (eq 'running (rlm-run-state run)))
    (should-not (string-search "waits" (rlm--header-line)))))

(ert-deftest rlm-header-is-made-anew-only-when-something-changed ()
  "Redisplay asks for it all the time; only a fact, a state or a second makes it anew."
  (rlm-test-with-answer
    (setf (rlm-run-ended run) (rlm-run-created run)) ; no seconds pass
    (cl-letf* (((symbol-function 'rlm--header-room) (lambda () 100))
               (first (rlm--header-shown)))
      (should (eq first (rlm--header-shown)))
      (rlm-test-tell 1 "turn_started" :time 1 :turn 3 :stream "r1")
      (should (string-match-p "turn 3" (rlm--header-shown)))
      (should-not (eq first (rlm--header-shown))))))

(ert-deftest rlm-header-no-host-is-there ()
  "With its only host gone a run waits, says so and until when, and can be cancelled; another Emacs finds it so."
  (rlm-test-with-daemon (:scripts '(("root" . ("Never."))))
    (rlm-test-kill models)
    (rlm-test-with-notes "text\n"
      (let* ((buffer (rlm-test-ask "Q?"))
             (run (rlm-test-run-of buffer)))
        (rlm-test-await (rlm-run-waits run))
        (should (eq 'waiting (rlm-run-state run)))
        (with-current-buffer buffer
          (should (string-match-p "waits: .*box.*; until [0-9][0-9]:[0-9][0-9] .*\\[cancel\\]" (rlm--header-line))))
        (should (equal "waiting" (rlm-test-state run)))
        (let ((rlm-on-kill 'detach))
          (kill-buffer buffer))
        (clrhash rlm--runs)
        (save-window-excursion
          (rlm-open-run (rlm-run-id run)))
        (rlm-test-await (rlm-run-find (rlm-run-id run)))
        (let ((again (rlm-run-find (rlm-run-id run))))
          (rlm-test-await (rlm-run-waits again))
          (rlm-run-cancel again)
          (rlm-wait again rlm-test-patience)
          (should (eq 'cancelled (rlm-run-state again))))))))

(ert-deftest rlm-header-every-mode-line-counts-runs ()
  "While runs are going the mode line says how many, and whether one asks; then nothing."
  (rlm-test-with-home
    (let ((runs (mapcar (lambda (id) (rlm--run-make :id id :socket (rlm-socket-path) :question "Q"
                                                    :link 'attached :state 'running))
                        '("a" "b")))
          (global-mode-string "mine")
          (rlm--mode-line ""))
      (dolist (run runs)
        (puthash (rlm-run-id run) run rlm--runs))
      (rlm--run-tell (car runs) 'state)
      (should (equal " rlm:2" (substring-no-properties rlm--mode-line)))
      (should (equal '("" "mine" rlm--mode-line) global-mode-string))
      (setf (rlm-run-asks (cadr runs)) '(:why "Long."))
      (rlm--run-tell (cadr runs) 'state)
      (should (equal " rlm:2?" (substring-no-properties rlm--mode-line)))
      (rlm--run-over (cadr runs) 'ended)
      (should (equal " rlm:1" (substring-no-properties rlm--mode-line)))
      (let ((rlm-mode-line nil))
        (rlm--run-tell (car runs) 'state)
        (should (equal "" rlm--mode-line)))
      (rlm--run-over (car runs) 'ended)
      (should (equal "" rlm--mode-line)))))

(ert-deftest rlm-header-the-budget ()
  "The list of accounts says what is spent, reserved and allowed, by the daemon's own words."
  (rlm-test-with-server
    (rlm-test-answer "budget/show" '(:accounts [(:name "day" :limit 5 :spent 1.25 :reserved 0.01)
                                                (:name "month" :limit nil :spent 20 :reserved 0)]))
    (save-window-excursion
      (rlm-list-budget)
      (rlm-test-await tabulated-list-entries)
      (should (string-match-p "day +\\$1\\.25 +\\$0\\.0100 +\\$5\\.00" (buffer-string)))
      (should (string-match-p "month +\\$20\\.00 +\\$0\\.0000 +none" (buffer-string))))))

(ert-deftest rlm-list-a-run-is-deleted ()
  "D in the list of runs, and a yes: the daemon has it no more; a no leaves it."
  (rlm-test-with-daemon (:scripts '(("root" . ("A."))))
    (let ((run (rlm-wait (rlm-query "Q?" "a text") rlm-test-patience)))
      (save-window-excursion
        (rlm-list-runs)
        (rlm-test-await tabulated-list-entries)
        (goto-char (point-min))
        (cl-letf (((symbol-function 'y-or-n-p) #'ignore))
          (call-interactively (key-binding "D")))
        (should (rlm-test-at-daemon run))
        (cl-letf (((symbol-function 'y-or-n-p) (lambda (_) t)))
          (call-interactively (key-binding "D")))
        (rlm-test-await (null tabulated-list-entries))
        (should-error (rlm-test-at-daemon run) :type 'user-error)))))

(ert-deftest rlm-list-a-host-is-paused ()
  "P pauses the host at the daemon, and again lets it work."
  (rlm-test-with-daemon (:scripts '(("root" . ("A."))))
    (save-window-excursion
      (let ((rlm-list-interval nil)
            (state (lambda () (plist-get (cdr (caar tabulated-list-entries)) :state))))
        (rlm-list-hosts)
        (rlm-test-await tabulated-list-entries)
        (goto-char (point-min))
        (call-interactively (key-binding "P"))
        (rlm-test-await (equal "paused" (funcall state)))
        (call-interactively (key-binding "P"))
        (rlm-test-await (not (equal "paused" (funcall state))))
        (rlm-list-budget)
        (rlm-test-await tabulated-list-entries)))))

(ert-deftest rlm-context-a-decrypted-text-is-never-on-a-disk ()
  "What is asked of a gpg buffer is ephemeral at the daemon, however large it is."
  (rlm-test-with-daemon (:scripts '(("root" . ("A." "B."))))
    (with-temp-buffer
      (require 'epa-hook)
      (insert "a secret " (make-string 300000 ?x) "\n")
      (let ((rlm-strategy "quote"))
        (setq buffer-file-name (expand-file-name "secret.gpg" rlm-test-folder))
        (unwind-protect
            (let ((runs (list (rlm-query "secret?" (list (current-buffer) 1 10))
                              (rlm-query "secret?" (list (current-buffer) 1 (point-max))))))
              (dolist (run runs)
                (rlm-wait run rlm-test-patience)
                (should-not (rlm-run-error run))
                (let ((pin (elt (plist-get (rlm-test-at-daemon run) :contexts) 0)))
                  (should (eq t (plist-get pin :private)))
                  (should (eq t (plist-get pin :ephemeral))))))
          (setq buffer-file-name nil)
          (set-buffer-modified-p nil))))))

(ert-deftest rlm-header-narrow-windows-keep-what-counts ()
  "Where there is no room the buttons go first, then the progress; state and keys stay."
  (rlm-test-with-home
    (let ((run (rlm--run-make :id rlm-test-id :socket (rlm-socket-path) :question "Q" :link 'done
                              :state 'ended :outcome "answered" :turn 2 :hosts '("m40")
                              :citations '((:number 1 :quote "q")) :ended (float-time))))
      (with-current-buffer (rlm--answer-make run)
        (pcase-dolist (`(,room . ,expected)
                       '((nil . "\\` done .*m40.*\\[ask on\\].*\\[more\\] · M-g n shows what it quotes\\'")
                         (200 . "\\` done .*m40.*\\[ask on\\].*\\[more\\] · M-g n shows what it quotes\\'")
                         (75 . "\\` done .*m40.*\\[ask on\\] · M-g n shows what it quotes\\'")
                         (60 . "\\` done · turn 2 · m40 · [0-9]+ s · M-g n shows what it quotes\\'")
                         (45 . "\\` done · [0-9]+ s · M-g n shows what it quotes\\'")
                         (36 . "\\` done · M-g n shows what it quotes\\'")
                         (5 . "\\` done · M-g n shows what it quotes\\'")))
          (should (string-match-p expected (rlm--header-line room))))
        (dolist (room '(200 20))
          (cl-letf (((symbol-function 'rlm--header-room) (lambda () room)))
            (should (eq (> room 20) (and (string-search "more" (rlm--header-shown)) t)))))))))

(provide 'rlm-header-test)
;;; rlm-header-test.el ends here
