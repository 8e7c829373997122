;;; rlm-daemon-test.el --- Questions put to a real daemon -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A daemon, caged workers and a scripted model server for each test;
;; what a person would do, and what goes wrong around them.

;;; Code:

(require 'rlm-test)

;;;; Answers

(ert-deftest rlm-daemon-an-answer-streams-and-cites ()
  "The answer grows while it is told, in Org, and ends with citations and receipt."
  (rlm-test-with-daemon
      (:scripts `(("root" . (,(list :text (concat "# Found\nIt **is** here:\n\n> quick brown NEEDLE\n\n"
                                                  (make-string 300 ?x) "\n* done")
                                    :chunk 10 :pause 0.02)))))
    (rlm-test-with-notes "line one\nthe quick brown NEEDLE lies\nline three\n"
      (let ((buffer (rlm-test-ask "Where is it?")))
        (should (with-current-buffer buffer (derived-mode-p 'org-mode)))
        (rlm-test-await-words buffer "*Found*")
        (rlm-test-await-words buffer "xxx")
        (should (rlm-run-live-p (rlm-test-run-of buffer)))
        (should (string-match-p "C-c C-k cancels"
                                (with-current-buffer buffer (rlm--header-line))))
        (let ((text (rlm-test-complete buffer)))
          (should (string-match-p "^It \\*is\\* here:$" text))
          (should (string-match-p "^- done$" text))
          (should (string-match-p
                   "^1\\. \\[\\[rlm:[-0-9a-f]+::1\\]\\[notes\\.txt:2\\]\\] “quick brown NEEDLE”$" text))
          (should (string-match-p "characters; .* on box; [^\n]*\n\\'" text)))
        (with-current-buffer buffer
          (should (= 2 (length (org-map-entries #'point))))
          (should (string-match-p "\\` done .*M-g n" (rlm--header-line))))))))

(ert-deftest rlm-daemon-lisp-gets-the-run ()
  "`rlm-query' returns a run at once and calls back once, with no buffer made."
  (rlm-test-with-daemon (:scripts '(("root" . ("Forty-two."))))
    (let* ((called nil)
           (before (buffer-list))
           (run (rlm-query "What?" "a text of some words"
                           :callback (lambda (run) (push run called)))))
      (should (rlm-run-live-p run))
      (should-not called)
      (should (eq run (rlm-wait run rlm-test-patience)))
      (should (equal (list run) called))
      (should (equal "Forty-two." (rlm-run-answer run)))
      (should-not (seq-filter (lambda (buffer)
                                (and (not (memq buffer before))
                                     (string-prefix-p "*rlm:" (buffer-name buffer))))
                              (buffer-list))))))

(ert-deftest rlm-daemon-a-failing-callback-harms-nothing ()
  "An error in the caller's code is a message; the answer is complete."
  (rlm-test-with-daemon (:scripts '(("root" . ("Forty-two."))))
    (let ((run (rlm-query "What?" "a text" :callback (lambda (_) (error "Caller broke")))))
      (rlm-wait run rlm-test-patience)
      (should (equal "Forty-two." (rlm-run-answer run)))
      (should (rlm-call-sync "daemon/status" nil)))))

(ert-deftest rlm-daemon-without-a-model-it-quotes ()
  "With no host there is an answer too, which says that no model was used."
  (rlm-test-with-daemon nil
    (rlm-test-with-notes (concat (mapconcat (lambda (n) (format "Paragraph %d is about sheep." n))
                                            (number-sequence 1 300) "\n\n")
                                 "\n\nThe zeppelin lands at noon.\n")
      (let ((text (rlm-test-complete (rlm-test-ask "When does the zeppelin land?"))))
        (should (string-match-p "no language model" (downcase text)))
        (should (string-match-p "^1\\. \\[\\[rlm:[^]]+\\]\\[notes\\.txt:[0-9]+\\]\\] " text))
        (with-temp-buffer
          (insert text)
          (goto-char (point-min))
          (re-search-forward "^\\[1\\] notes\\.txt:\\([0-9]+\\):\n#\\+begin_quote\n")
          (let ((line (string-to-number (match-string 1)))
                (quoted (point)))
            (search-forward "The zeppelin lands")
            (should (= 601 (+ line (1- (count-lines quoted (point))))))))))))

(ert-deftest rlm-daemon-programs-of-a-model ()
  "A run of several turns: the newest turn shows, the answer takes its place."
  (rlm-test-with-daemon
      (:scripts `(("root" . (,(list :text "I look first.\n```repl\nreplies = llm_query_batched([f'piece {i}' for i in range(6)])\nprint(len(replies))\n```"
                                    :chunk 8 :pause 0.05)
                             "```repl\nresult = 'six pieces'\n```\nFINAL_VAR(result)"))))
    (let ((rlm-strategy "rlm"))
      (rlm-test-with-notes "some text\n"
        (let* ((buffer (rlm-test-ask "How many?"))
               (run (rlm-test-run-of buffer)))
          (rlm-test-await-words buffer "I look first.")
          (rlm-test-await-words buffer "#+begin_src python")
          (let ((text (rlm-test-complete buffer)))
            (should (string-match-p "^six pieces$" text))
            (should-not (string-match-p "I look first" text)))
          (should (equal '("rlm" 2 6 6 0) (list (rlm-run-strategy run) (rlm-run-turn run)
                                                (rlm-run-pieces run) (rlm-run-pieces-done run)
                                                (rlm-run-pieces-failed run))))
          (should (string-match-p "6/6 pieces"
                                  (with-current-buffer buffer (rlm--header-line)))))))))

(ert-deftest rlm-daemon-two-runs-side-by-side ()
  "Runs at the same time stream into their own buffers and end each with its own answer."
  (rlm-test-with-daemon
      (:scripts `(("root" . (,(append rlm-test-slowly nil) ,(append rlm-test-slowly nil)))) :slots 2)
    (rlm-test-with-notes "text\n"
      (let* ((one (rlm-test-ask "One?"))
             (two (rlm-test-ask "Two?")))
        (rlm-test-await-words one "Slowly the")
        (rlm-test-await-words two "Slowly the")
        (should (rlm-run-live-p (rlm-test-run-of one)))
        (dolist (buffer (list one two))
          (should (string-match-p "398 399 400 and that is all\\.\n" (rlm-test-complete buffer))))
        (should (string-match-p "\\`\\* One\\?" (rlm-test-answer-text one)))
        (should (string-match-p "\\`\\* Two\\?" (rlm-test-answer-text two)))))))

;;;; Texts

(defmacro rlm-test-counting-loads (&rest body)
  "Run BODY; return how often a text was loaded meanwhile."
  (declare (indent 0) (debug t))
  `(let* ((loads 0)
          (counter (lambda (method &rest _)
                     (when (equal method "context/load") (cl-incf loads)))))
     (advice-add 'rlm-call :before counter)
     (unwind-protect (progn ,@body)
       (advice-remove 'rlm-call counter))
     loads))

(ert-deftest rlm-daemon-unchanged-text-is-not-sent-again ()
  "A second question of the same text loads nothing; of an edited one it does."
  (rlm-test-with-daemon (:scripts '(("root" . ("A." "B." "C." "D."))))
    (rlm-test-with-notes "some text\n"
      (let ((ask (lambda () (rlm-wait (rlm-query "Q?" (current-buffer)) rlm-test-patience))))
        (should (= 1 (rlm-test-counting-loads (funcall ask))))
        (should (= 0 (rlm-test-counting-loads (funcall ask))))
        (insert "more")
        (should (= 1 (rlm-test-counting-loads (funcall ask))))))))

(ert-deftest rlm-daemon-a-forgotten-text-is-sent-again ()
  "If the daemon has dropped the context, the question succeeds all the same."
  (rlm-test-with-daemon (:scripts '(("root" . ("A." "B."))))
    (rlm-test-with-notes "some text\n"
      (rlm-wait (rlm-query "Q?" (current-buffer)) rlm-test-patience)
      (rlm-call-sync "context/drop"
                     (list :name (rlm-source-name (car (rlm-run-sources
                                                        (car (hash-table-values rlm--runs)))))))
      (let ((run (rlm-query "Another?" (current-buffer))))
        (rlm-wait run rlm-test-patience)
        (should (equal "B." (rlm-run-answer run)))))))

(ert-deftest rlm-daemon-a-remote-default-directory ()
  "In a buffer whose directory is remote, all happens here."
  (rlm-test-with-daemon (:scripts '(("root" . ("> NEEDLE one\nA."))))
    (rlm-test-with-notes (concat (make-string 300000 ?x) "\nNEEDLE one\n")
      (setq default-directory "/ssh:nowhere.invalid:/tmp/")
      (let* ((rlm-strategy "direct")
             (run (rlm-query "Q?" (list (current-buffer) 300000 (point-max)))))
        (rlm-wait run rlm-test-patience)
        (should (equal "A." (car (last (split-string (rlm-run-answer run) "\n")))))))))

(ert-deftest rlm-daemon-what-was-asked-about-last ()
  "If asked for, and in an answer buffer, the text is the last one."
  (rlm-test-with-daemon (:scripts '(("root" . ("A." "B." "C."))))
    (rlm-test-with-notes "some text\n"
      (let* ((notes (current-buffer))
             (answer (rlm-test-ask "Q?")))
        (rlm-test-complete answer)
        (with-current-buffer answer
          (should (eq notes (rlm-source-buffer (car (rlm--dwim-source nil))))))
        (with-temp-buffer
          (should (eq notes (rlm-source-buffer (car (rlm--dwim-source t)))))
          (should-error (rlm--dwim-source nil) :type 'user-error))))))

;;;; The whole of the great buffer

(defun rlm-test-bare-write (start end)
  "Return the seconds that a bare `write-region' from START to END takes."
  (let ((coding-system-for-write 'utf-8-unix)
        (write-region-inhibit-fsync t)
        (began (float-time)))
    (write-region start end (expand-file-name "bare" (getenv "XDG_RUNTIME_DIR")) nil 'silent)
    (- (float-time) began)))

(defun rlm-test-longest-block (work)
  "Call WORK; return the longest time for which no timer ran, in seconds."
  (let* ((longest 0)
         (last (float-time))
         (timer (run-at-time 0 0.005
                             (lambda ()
                               (let ((now (float-time)))
                                 (setq longest (max longest (- now last))
                                       last now))))))
    (unwind-protect
        (progn (setq last (float-time))
               (funcall work)
               longest)
      (cancel-timer timer))))

(defun rlm-test-resident ()
  "Return the megabytes of memory that this Emacs holds."
  (with-temp-buffer
    (insert-file-contents "/proc/self/status")
    (re-search-forward "^VmRSS:[ \t]*\\([0-9]+\\)")
    (/ (string-to-number (match-string 1)) 1024.0)))

(defconst rlm-test-zeppelin
  (list :text "```repl\nfound = search('the zeppelin lands', 1)[0]\nat = found.index('zeppelin')\nquote = found[at:at + 34]\nanswer['content'] = 'It lands here:\\n\\n> ' + quote\nanswer['ready'] = True\n```"
        :chunk 8 :pause 0.01)
  "What the root replies, slowly, when it is asked for the zeppelin.")

(ert-deftest rlm-daemon-forty-megabytes ()
  "A buffer of 40 MB: Emacs is not blocked for longer than twice a bare
`write-region' of it, measured in the same run; the citation lands on the quote,
and Emacs has grown by less than 60 MB.
Another program may take the processor meanwhile: one of three times counts."
  (rlm-test-with-daemon
      (:scripts `(("root" . (,rlm-test-zeppelin ,rlm-test-zeppelin ,rlm-test-zeppelin))))
    (rlm-test-with-notes ""
      (dotimes (i 10)
        (let ((line (format "Paragraph of flock %d says nothing of airships, only żółw and sheep.\n" i)))
          (insert (mapconcat #'identity (make-list 58000 line) ""))))
      (goto-char 25000000)
      (forward-line 0)
      (insert "At noon the zeppelin lands at field nine, they say.\n")
      (should (> (position-bytes (point-max)) 40000000))
      (garbage-collect)
      (let ((rlm-strategy "rlm")
            (ratios nil)
            (resident (rlm-test-resident))
            buffer)
        (while (and (< (length ratios) 3)
                    (or (null ratios) (>= (car ratios) 2)))
          (goto-char (point-max))
          (insert "\n")                 ; not sent twice if it is the same
          (let* ((bare (rlm-test-bare-write (point-min) (point-max)))
                 (blocked (rlm-test-longest-block
                           (lambda ()
                             (setq buffer (rlm-test-ask "Where does the zeppelin land?"))
                             (rlm-test-await-words buffer "found = search")
                             (should (string-match-p "> zeppelin\\|zeppelin lands"
                                                     (rlm-test-complete buffer)))))))
            (setq bare (max bare (rlm-test-bare-write (point-min) (point-max))))
            (message "40 MB: blocked %.3f s, bare write-region %.3f s" blocked bare)
            (push (/ blocked bare) ratios)))
        (should (< (car ratios) 2))
        (should (< (- (rlm-test-resident) resident) 60))
        (save-window-excursion
          (switch-to-buffer buffer)
          (next-error)
          (with-current-buffer (window-buffer)
            (should (equal "notes.txt" (buffer-name)))
            (goto-char (window-point))
            (should (looking-at-p "zeppelin lands at field nine"))))))))

;;;; Ends

(ert-deftest rlm-daemon-cancel ()
  "C-c C-k ends the run at the daemon, long before the model would have."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "too late" :latency 100)))))
    (rlm-test-with-notes "text\n"
      (let* ((buffer (rlm-test-ask "Q?"))
             (run (rlm-test-run-of buffer)))
        (rlm-test-await (= 1 (rlm-run-turn run)))
        (with-current-buffer buffer
          (call-interactively (key-binding (kbd "C-c C-k"))))
        (let ((text (rlm-test-complete buffer)))
          (should (string-match-p "^\\*Cancelled:\\* asked in Emacs" text)))
        (should (eq 'cancelled (rlm-run-state run)))
        (should (equal "cancelled" (rlm-test-state run)))
        (should-error (with-current-buffer buffer (call-interactively #'rlm-cancel))
                      :type 'user-error)))))

(ert-deftest rlm-daemon-cancel-at-once ()
  "A run that is cancelled before the daemon knows it is asked nowhere, or ended there."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "late" :latency 100) (:text "late" :latency 100)))))
    (let ((run (rlm-query "Q?" "a text")))
      (rlm-run-cancel run)
      (should (eq 'cancelled (rlm-run-state run)))
      (rlm-call-sync "daemon/status" nil)
      (rlm-test-await (rlm--client-live-p (rlm--client)))
      (should (= 0 (plist-get (rlm-call-sync "daemon/status" nil) :runs))))
    (let* ((link nil)
           (cancel (lambda (run &rest _)
                     (setq link (rlm-run-link run))
                     (rlm-run-cancel run)))
           (run (progn (advice-add 'rlm--run-start :after cancel)
                       (rlm-query "Q?" (list "a text")))))
      (unwind-protect (rlm-wait run rlm-test-patience)
        (advice-remove 'rlm--run-start cancel))
      (should (eq 'asking link))
      (should (eq 'cancelled (rlm-run-state run)))
      (should (equal "cancelled" (rlm-test-state run))))))

(ert-deftest rlm-daemon-a-killed-buffer-cancels ()
  "Killing the answer buffer in mid-stream cancels the run, at once and quietly."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly))))
    (rlm-test-with-notes "text\n"
      (let* ((buffer (rlm-test-ask "Q?"))
             (run (rlm-test-run-of buffer)))
        (rlm-test-await-words buffer "Slowly the")
        (kill-buffer buffer)
        (rlm-test-await (not (rlm-run-live-p run)))
        (should (equal "cancelled" (rlm-test-state run)))))))

(ert-deftest rlm-daemon-a-killed-buffer-may-leave-the-run ()
  "With `rlm-on-kill' so set the run goes on and ends in the daemon."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly))))
    (rlm-test-with-notes "text\n"
      (let* ((buffer (rlm-test-ask "Q?"))
             (run (rlm-test-run-of buffer))
             (rlm-on-kill 'detach))
        (rlm-test-await-words buffer "Slowly the")
        (kill-buffer buffer)
        (rlm-test-await (equal "ended" (rlm-test-state run)))
        (should (eq 'left (rlm-run-link run)))))))

(ert-deftest rlm-daemon-a-killed-source-does-not-matter ()
  "The text's buffer may go while the run is going."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly))))
    (let* ((notes (generate-new-buffer "notes.txt"))
           (buffer (with-current-buffer notes
                     (insert "text\n")
                     (rlm-test-ask "Q?"))))
      (rlm-test-await-words buffer "Slowly the")
      (kill-buffer notes)
      (should (string-match-p "that is all" (rlm-test-complete buffer))))))

(ert-deftest rlm-daemon-killed-in-mid-stream ()
  "When the daemon dies the header says so; after its return the run is caught up with."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly "It is done."))))
    (rlm-test-with-notes "text\n"
      (let* ((buffer (rlm-test-ask "Q?"))
             (run (rlm-test-run-of buffer)))
        (rlm-test-await-words buffer "Slowly the")
        (rlm-test-kill daemon)
        (rlm-test-await (eq 'lost (rlm-run-link run)))
        (with-current-buffer buffer
          (should (string-match-p "connection lost .*C-c C-r" (rlm--header-line)))
          (should (string-match-p "Slowly the" (buffer-string)))
          (should-error (call-interactively #'rlm-attach) :type 'user-error)
          (rlm-test-daemon)
          (call-interactively (key-binding (kbd "C-c C-r"))))
        (should (string-match-p "It is done\\." (rlm-test-complete buffer)))
        (should (eq 'ended (rlm-run-state run)))))))

(ert-deftest rlm-daemon-a-lost-connection-loses-nothing ()
  "The connection breaks, the daemon goes on: the next question finds both answers."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly "Second."))) :slots 2)
    (rlm-test-with-notes "text\n"
      (let ((one (rlm-test-ask "One?")))
        (rlm-test-await-words one "Slowly the")
        (rlm-disconnect)
        (rlm-test-await (eq 'lost (rlm-run-link (rlm-test-run-of one))))
        (should (equal (list (rlm-test-run-of one)) (rlm--lost-runs)))
        (let ((two (rlm-test-ask "Two?")))
          (should (string-match-p "^Second\\.$" (rlm-test-complete two)))
          (should (string-match-p "398 399 400 and that is all\\.\n" (rlm-test-complete one))))))))

(ert-deftest rlm-daemon-errors-come-with-their-hint ()
  "What the daemon refuses is told in the answer buffer, with what to do."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "no such model" :status 404)))))
    (rlm-test-with-notes "text\n"
      (let* ((buffer (rlm-test-ask "Q?"))
             (text (rlm-test-complete buffer))
             (run (rlm-test-run-of buffer)))
        (should (eq 'failed (rlm-run-state run)))
        (should-not (string-empty-p (plist-get (rlm-run-error run) :hint)))
        (should (string-search (plist-get (rlm-run-error run) :hint) (rlm-error-text (rlm-run-error run))))
        (should (string-match-p (regexp-quote (rlm--org-plain
                                               (rlm--one-line (rlm-error-text (rlm-run-error run)) 1000)))
                                text))
        (should (string-match-p "\\` failed" (with-current-buffer buffer (rlm--header-line))))))))

(ert-deftest rlm-daemon-nobody-there-is-an-error-and-no-buffer ()
  "Without a daemon the command is a `user-error' and leaves nothing behind."
  (rlm-test-with-home
    (rlm-test-with-notes "text\n"
      (let ((before (buffer-list)))
        (should-error (rlm-query "Q?" (current-buffer) :display t) :type 'user-error)
        (should-error (rlm-query "  " (current-buffer) :display t) :type 'user-error)
        (should-not (seq-difference (buffer-list) before))
        (should-not (hash-table-values rlm--runs))))))

(ert-deftest rlm-daemon-the-text-is-that-of-the-asking ()
  "While the daemon starts the buffer is edited, or killed: the question is about what was there.
A large text is copied only then."
  (pcase-dolist (`(,more ,change) (list (list 0 #'erase-buffer)
                                        (list 300000 #'erase-buffer)
                                        (list 300000 #'kill-buffer)))
    (rlm-test-with-home
      (let ((rlm-auto-start 'direct)
            (rlm-daemon-command (list rlm-test-python "-m" "rlmd"))
            (buffer (generate-new-buffer "asked"))
            run pid)
        (rlm-test-model-server
         :scripts '(("root" . ("```repl\nanswer['content'] = context[:13]\nanswer['ready'] = True\n```"))))
        (with-current-buffer buffer
          (insert "the old words stand here\n" (make-string more ?x))
          (setq run (rlm-query "Q?" buffer :strategy "rlm"))
          (should (eq 'starting (rlm--client-state (rlm--client))))
          (should (eq (= more 0) (and (rlm-source-text (car (rlm-run-sources run))) t)))
          (funcall change)
          (when (buffer-live-p buffer)
            (insert "all is new")))
        (unwind-protect
            (progn
              (rlm-wait run rlm-test-patience)
              (setq pid (plist-get (rlm-call-sync "daemon/status" nil) :pid))
              (should (equal "the old words" (rlm-run-answer run))))
          (when pid
            (signal-process pid 'KILL)
            (rlm-test-await (null (process-attributes pid)))))))))

(provide 'rlm-daemon-test)
;;; rlm-daemon-test.el ends here
