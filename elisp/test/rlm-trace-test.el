;;; rlm-trace-test.el --- Watching a run, and the lists -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The trace of a run that goes and of one that is over; the lists; the
;; doctor.  Each command at least once.

;;; Code:

(require 'rlm-test)
(require 'rlm-trace)
(require 'rlm-status)
(require 'rlm-doctor)
(require 'rlm-cell)

(defconst rlm-test-work
  (list (list :text "I look first.\n```repl\nreplies = llm_query_batched([f'piece {i}' for i in range(6)])\nprint(len(replies), 'replies')\nx = 42\n```"
              :chunk 8 :pause 0.03)
        "Now an error.\n```repl\nprint(undefined_name)\n```"
        "```repl\nresult = 'it is six'\n```\nFINAL_VAR(result)")
  "Replies of a root model that works in three turns.")

(defmacro rlm-test-with-trace (&rest body)
  "Run BODY in the trace of a run that worked in three turns, when it is over."
  (declare (indent 0) (debug t))
  `(rlm-test-with-daemon
       (:scripts (list (cons "root" rlm-test-work)
                       (cons "sub" (cons '(:text "no" :status 400)
                                         (make-list 5 "nothing here"))))
        :slots 1)
     (rlm-test-with-notes "text\n"
       (save-window-excursion
         (let ((run (rlm-query "How many?" (current-buffer) :strategy "rlm" :session "s")))
           (rlm-trace run)
           (rlm-wait run rlm-test-patience)
           (rlm-test-await (string-search "Ended:" (buffer-string)))
           (rlm-test-await (null rlm--trace-timer))
           ,@body)))))

(defun rlm-test-seen-in (buffer words)
  "Wait until BUFFER shows WORDS."
  (rlm-test-await (and (get-buffer buffer)
                       (string-search words (rlm-test-answer-text buffer)))
                  words))

(defun rlm-test-goto (words)
  "Put point of the trace at the line that holds WORDS."
  (goto-char (point-min))
  (search-forward words)
  (beginning-of-line))

(ert-deftest rlm-trace-shows-the-run-as-it-happens ()
  "Turns, programs in colours, sub-queries, output and end stand in the order of things."
  (rlm-test-with-trace
    (let ((text (buffer-string))
          (from 0))
      (dolist (words '("Question" "How many?" "Turn 1" "I look first." "cell 1" "replies = llm_query_batched"
                       "sub-queries 6/6, 1 failed" "output" "6 replies" "Turn 2" "cell 2"
                       "NameError" "Turn 3" "cell 3" "Ended: answered" "it is six"))
        (let ((at (string-search words text from)))
          (should (equal (list words t) (list words (and at t))))
          (setq from at)))
      (should-not (string-search "```repl" text)))
    (rlm-test-goto "replies = llm")
    (search-forward "for")
    (should (eq 'font-lock-keyword-face (get-text-property (1- (point)) 'font-lock-face)))
    (should (string-match-p "done · rlm" (rlm--header-line)))))

(ert-deftest rlm-trace-folds-filters-and-moves ()
  "TAB folds with all below; f leaves what failed; n and p go from heading to heading."
  (rlm-test-with-trace
    (rlm-test-goto "Turn 1")
    (let ((before (buffer-string)))
      (rlm-trace-toggle)
      (should-not (string-search "cell 1" (buffer-string)))
      (should (string-search "cell 2" (buffer-string)))
      (should (looking-at-p "▸ Turn 1"))
      (rlm-trace-toggle)
      (should (equal before (buffer-string))))
    (rlm-trace-toggle-all)
    (should-not (string-search "cell" (buffer-string)))
    (rlm-trace-toggle-all)
    (rlm-test-goto "sub-queries")
    (rlm-trace-toggle)
    (should (= 6 (how-many "^ +[0-9] [✗·✓]" (point-min))))
    (rlm-trace-failed)
    (should (= 1 (how-many "^ +[0-9] ✗ .*piece [0-9] → " (point-min))))
    (should (= 0 (how-many "^ +[0-9] ·" (point-min))))
    (should (string-search "NameError" (buffer-string)))
    (should-not (string-search "Turn 3" (buffer-string)))
    (rlm-trace-failed)
    (goto-char (point-min))
    (rlm-trace-next 2)
    (should (looking-at-p "▾ Turn 1"))
    (rlm-trace-previous)
    (should (looking-at-p "  strategy chosen"))
    (goto-char (point-min))
    (should-error (rlm-trace-previous) :type 'user-error)))

(ert-deftest rlm-trace-shows-sub-queries-whole ()
  "RET on a sub-query shows prompt and reply, or why it failed; w copies."
  (rlm-test-with-trace
    (rlm-test-goto "sub-queries")
    (rlm-trace-toggle)
    (rlm-test-goto "nothing here")
    (rlm-trace-visit)
    (rlm-test-seen-in "*rlm-text*" "\n\nReply\n\nnothing here")
    (should (string-match-p "\\`Prompt\n\npiece [0-9]\n" (rlm-test-answer-text "*rlm-text*")))
    (rlm-trace-copy)
    (should (equal "nothing here" (current-kill 0)))
    (rlm-test-goto "✗")
    (rlm-trace-visit)
    (rlm-test-seen-in "*rlm-text*" "\n\nFailed\n\n")
    (rlm-test-goto "cell 1")
    (rlm-trace-copy)
    (should (string-prefix-p "replies = llm" (current-kill 0)))
    (rlm-trace-answer)
    (rlm-test-await (rlm--answer-buffer run))
    (rlm-test-complete (rlm--answer-buffer run))))

(ert-deftest rlm-trace-edits-a-cell-and-runs-it ()
  "e brings the cell; it runs where the names of the run still are."
  (rlm-test-with-trace
    (rlm-test-goto "6 replies")
    (rlm-trace-edit)
    (should (derived-mode-p 'python-mode))
    (should (string-prefix-p "replies = llm" (buffer-string)))
    (erase-buffer)
    (insert "print(x, 'is kept'); 1/0")
    (should (string-match-p "session s · C-c C-c runs it" (rlm--cell-header)))
    (call-interactively (key-binding (kbd "C-c C-c")))
    (should-error (rlm-cell-run) :type 'user-error)
    (rlm-test-seen-in "*rlm output*" "42 is kept\n")
    (rlm-test-seen-in "*rlm output*" "ZeroDivisionError")
    (should-error (rlm-cell-cancel) :type 'user-error)))

(ert-deftest rlm-trace-of-the-past-is-that-of-the-present ()
  "The trace that was there all the time and one from the journal show the same."
  (rlm-test-with-trace
    (let ((live (buffer-string)))
      (revert-buffer)
      (rlm-test-await (string-search "Ended:" (buffer-string)))
      (rlm-test-await (null rlm--trace-timer))
      (should (equal live (buffer-string))))))

(ert-deftest rlm-trace-runs-of-runs ()
  "A run that a cell asked for is a node with its question, its end and its answer."
  (rlm-test-with-daemon
      (:scripts '(("root" . ("```repl\nr = rlm_query('What of this?', 'a little text')\n```\nFINAL_VAR(r)"
                             "The child says so."))))
    (save-window-excursion
      (let ((run (rlm-query "Q?" "a text" :strategy "rlm")))
        (rlm-trace run)
        (rlm-wait run rlm-test-patience)
        (rlm-test-await (string-search "Ended:" (buffer-string)))
        (rlm-test-goto "run of its own: answered  What of this?")
        (rlm-trace-toggle)
        (forward-line 1)
        (should (looking-at-p "The child says so\\."))))))

(ert-deftest rlm-trace-long-lines-are-cut ()
  "An output line of 100,000 characters does not make Emacs slow; w copies it whole."
  (rlm-test-with-daemon
      (:scripts '(("root" . ("```repl\nprint('y' * 100000)\n```\nFINAL(done)"))))
    (save-window-excursion
      (let ((run (rlm-query "Q?" "a text" :strategy "rlm")))
        (rlm-wait run rlm-test-patience)
        (rlm-trace run)
        (rlm-test-await (string-search "Ended:" (buffer-string)))
        (should-not (string-match-p "^.\\{2000\\}" (buffer-string)))))))

;;;; Lists

(defun rlm-test-list (command words)
  "Call COMMAND, which shows a list, and wait until it shows WORDS."
  (funcall command)
  (rlm-test-seen-in (buffer-name) words)
  (rlm-test-goto words))

(ert-deftest rlm-status-runs ()
  "Runs are listed; RET opens the answer, t the trace."
  (rlm-test-with-daemon (:scripts '(("root" . ("Forty-two." (:text "late" :latency 100)))))
    (save-window-excursion
      (rlm-wait (rlm-query "What is it?" "a text") rlm-test-patience)
      (let ((slow (rlm-query "Slow?" "another text")))
        (rlm-test-await (= 1 (rlm-run-turn slow)))
        (rlm-test-list #'rlm-list-runs "Slow?")
        (rlm-runs-cancel)
        (rlm-test-seen-in "*rlm runs*" "cancelled"))
      (rlm-test-goto "What is it?")
      (clrhash rlm--runs)
      (rlm-runs-trace)
      (rlm-test-await (get-buffer "*rlm-trace: What is it?*"))
      (rlm-test-seen-in "*rlm-trace: What is it?*" "Ended: answered")
      (set-buffer "*rlm runs*")
      (rlm-runs-open)
      (rlm-test-await (seq-find (lambda (buffer)
                                  (and (string-prefix-p "*rlm: What" (buffer-name buffer))
                                       (string-search "Forty-two." (rlm-test-answer-text buffer))))
                                (buffer-list))))))

(ert-deftest rlm-status-contexts ()
  "Contexts are listed with their size, shown, searched, and erased after a question."
  (rlm-test-with-daemon nil
    (save-window-excursion
      (rlm-test-with-notes (concat (make-string 2000 ?x) "\nthe zeppelin lands\n")
        (rlm-keep-context "notes"))
      (rlm-test-await (append (plist-get (rlm-call-sync "context/list" nil) :contexts) nil))
      (rlm-test-list #'rlm-list-contexts "notes")
      (should (looking-at-p " notes +2,020 +1 +1 +kept"))
      (rlm-contexts-peek)
      (rlm-test-seen-in "*rlm-text*" "zeppelin")
      (rlm-contexts-search "zeppelin")
      (rlm-test-await (string-match-p "\\`notes[^\n]*:[0-9]+\n\\(?:.*\n\\)*the zeppelin lands"
                                      (rlm-test-answer-text "*rlm-text*")))
      (cl-letf (((symbol-function 'y-or-n-p) #'ignore))
        (rlm-contexts-drop))
      (cl-letf (((symbol-function 'y-or-n-p) (lambda (&rest _) t)))
        (rlm-contexts-drop))
      (rlm-test-await (string-empty-p (rlm-test-answer-text "*rlm contexts*"))))))

(ert-deftest rlm-status-contexts-follow-their-files ()
  "A context of files is brought up to date, and what changed is shown."
  (rlm-test-with-daemon nil
    (let ((file (rlm-test-file "seen.txt" "one\n")))
      (save-window-excursion
        (with-current-buffer (find-file-noselect file)
          (dired (file-name-directory file))
          (dired-goto-file file)
          (rlm-keep-context "files"))
        (rlm-test-await (append (plist-get (rlm-call-sync "context/list" nil) :contexts) nil))
        (rlm-test-file "seen.txt" "one\ntwo\nthree\n")
        (rlm-test-list #'rlm-list-contexts "files")
        (should (looking-at-p " files +4 +1 +1"))
        (call-interactively (key-binding "u"))
        (rlm-test-await (string-match-p " files +14 +1 +2" (rlm-test-answer-text "*rlm contexts*")))
        (rlm-test-goto "files")
        (call-interactively (key-binding "="))
        (rlm-test-seen-in "*rlm-text*" "changed  seen.txt  +2 −0 lines")))))

(ert-deftest rlm-status-sessions ()
  "Sessions are listed; a cell runs in one, a question is asked in one, one is ended."
  (rlm-test-with-daemon (:scripts '(("root" . ("```repl\nx = 41\n```\nFINAL_VAR(x)" "```repl\ny = x + 1\n```\nFINAL_VAR(y)"))))
    (save-window-excursion
      (rlm-wait (rlm-query "Q?" "a text" :strategy "rlm" :session "mine") rlm-test-patience)
      (rlm-test-list #'rlm-list-sessions "mine")
      (should (looking-at-p " mine +alive"))
      (rlm-sessions-execute)
      (insert "print(x)")
      (rlm-cell-run)
      (rlm-test-seen-in "*rlm output*" "41\n")
      (set-buffer "*rlm sessions*")
      (let* ((rlm-strategy "rlm")
             (run (rlm-sessions-ask "And?")))
        (rlm-wait run rlm-test-patience)
        (should (equal "42" (rlm-run-answer run))))
      (set-buffer "*rlm sessions*")
      (cl-letf (((symbol-function 'y-or-n-p) (lambda (&rest _) t)))
        (rlm-sessions-drop))
      (rlm-test-await (string-empty-p (rlm-test-answer-text "*rlm sessions*"))))))

(ert-deftest rlm-status-hosts-live ()
  "The list of hosts is live while it is seen, and stops with its buffer; one without a wake command says so."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "late" :latency 100)))))
    (save-window-excursion
      (let ((rlm-list-interval 0.1))
        (rlm-test-list #'rlm-list-hosts "box")
        (rlm-test-await rlm--list-subscribed)
        (rlm-test-await (string-search "0/2" (buffer-string)))
        (let ((run (rlm-query "Q?" "a text")))
          (rlm-test-seen-in "*rlm hosts*" "1/2")
          (rlm-run-cancel run)
          (rlm-test-seen-in "*rlm hosts*" "0/2"))
        (let (said)
          (cl-letf (((symbol-function 'message) (lambda (&rest words) (push (apply #'format words) said))))
            (rlm-hosts-wake)
            (rlm-test-await (seq-find (lambda (words) (string-match-p "box.*wake" words)) said))))
        (rlm-hosts-show)
        (rlm-test-seen-in "*rlm-text*" "provider     ollama")
        (let ((timer rlm--list-timer))
          (should (memq timer timer-list))
          (kill-buffer "*rlm hosts*")
          (should-not (memq timer timer-list)))))))

(ert-deftest rlm-status-hosts-are-told-of ()
  "Where the daemon tells of changes the list is not read by the second; it is followed anew when the daemon comes back."
  (rlm-test-with-server
    (let ((hosts (lambda (state &rest more)
                   (list :hosts (vector (append (list :name "m40" :state state :trust "mine" :slots 1 :slots_used 0
                                                      :queued 0 :completed 0 :failed 0 :models [])
                                                more)))))
          (rlm-list-interval 0.05)
          (reads (lambda () (length (rlm-test-seen "host/list")))))
      (rlm-test-answer "initialize" '(:protocol 1 :methods ["host/list" "host/subscribe" "host/wake"]))
      (rlm-disconnect)
      (rlm-test-await (eq 'idle (rlm--client-state (rlm--client))))
      (rlm-test-answer "host/list" (funcall hosts "asleep"))
      (rlm-disconnect)
      (rlm-test-await (eq 'idle (rlm--client-state (rlm--client))))
      (save-window-excursion
        (rlm-list-hosts)
        (rlm-test-seen-in "*rlm hosts*" "asleep")
        (rlm-test-await (rlm-test-seen "host/subscribe"))
        (let ((before (funcall reads)))
          (rlm-test-say (list (rlm-test-notification "host/changed" :hosts (plist-get (funcall hosts "waking") :hosts))
                              "reply"))
          (rlm-test-seen-in "*rlm hosts*" "waking")
          (rlm-call-sync "test/late" '(:seconds 0.3))
          (should (= before (funcall reads)))
          ;; What counts down is read all the same.
          (rlm-test-say (list (rlm-test-notification "host/changed" :hosts (plist-get (funcall hosts "down" :retry_in 9) :hosts))
                              "reply"))
          (rlm-test-await (> (funcall reads) before)))
        (rlm-test-goto "m40")
        (call-interactively (key-binding "w"))
        (rlm-test-await (equal '((:name "m40")) (rlm-test-seen "host/wake")))
        (rlm-call "test/die" nil :failure #'ignore)
        (rlm-test-await (not (buffer-local-value 'rlm--list-subscribed (get-buffer "*rlm hosts*"))))
        (rlm-call-sync "test/big" '(:chars 1))
        (rlm-test-await (= 2 (length (rlm-test-seen "host/subscribe"))))
        (kill-buffer "*rlm hosts*")
        (rlm-test-await (equal '(t t :json-false)
                               (mapcar (lambda (params) (plist-get params :on)) (rlm-test-seen "host/subscribe"))))))))

(ert-deftest rlm-status-a-list-without-a-daemon ()
  "A list that cannot be read because nobody listens can be read again later."
  (rlm-test-with-home
    (save-window-excursion
      (should-error (rlm-list-runs) :type 'user-error)
      (rlm-test-server)
      (rlm-test-answer "run/list" '(:runs []))
      (with-current-buffer "*rlm runs*"
        (revert-buffer))
      (rlm-test-await (rlm-test-seen "run/list")))))

(ert-deftest rlm-status-what-the-daemon-cannot-do ()
  "A key for something that this daemon does not know says so."
  (rlm-test-with-daemon nil
    (should-error (rlm--need "no/such") :type 'user-error)
    (rlm-call-sync "daemon/status" nil)
    (should-error (rlm--need "no/such") :type 'user-error)
    (rlm--need "run/start")))

;;;; The doctor

(ert-deftest rlm-doctor-says-what-is-wrong ()
  "Without a daemon it says so and what to do; with one it tells what that found."
  (rlm-test-with-home
    (save-window-excursion
      (rlm-doctor)
      (should (string-match-p "WRONG connection +No rlmd listens" (buffer-string)))
      (rlm-test-daemon)
      (revert-buffer)
      (rlm-test-seen-in "*rlm doctor*" "  ok  connection")
      (rlm-test-seen-in "*rlm doctor*" "Emacs"))))

(ert-deftest rlm-doctor-what-is-needed-is-wrong-what-is-not-is-a-note ()
  "Each thing that the daemon found has its mark, and what to do."
  (should (string-match-p
           "\\`  ok +a +fine\nWRONG +b +gone\n +mend it\n note +c +slow\n\\'"
           (rlm--doctor-daemon '(:checks [(:name "a" :ok t :needed t :message "fine" :hint "")
                                          (:name "b" :ok :json-false :needed t :message "gone" :hint "mend it")
                                          (:name "c" :ok :json-false :needed :json-false :message "slow" :hint "")])))))

(provide 'rlm-trace-test)
;;; rlm-trace-test.el ends here
