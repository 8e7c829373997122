;;; rlm-again-test.el --- What follows an answer -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Asking on, asking again, finding old runs, using an answer.

;;; Code:

(require 'rlm-test)
(require 'rlm-again)
(require 'rlm-apply)
(require 'rlm-transient)

(defconst rlm-test-keeps-x
  "```repl\nx = 41\n```\nFINAL_VAR(x)"
  "A reply whose program keeps a name.")

(ert-deftest rlm-again-follow-up-finds-the-names ()
  "The next question finds the names of the last one's programs; the session ends with the buffers."
  (rlm-test-with-daemon
      (:scripts `(("root" . (,rlm-test-keeps-x "```repl\ny = x + 1\n```\nFINAL_VAR(y)"))))
    (rlm-test-with-notes "text\n"
      (let* ((rlm-strategy "rlm")
             (one (rlm-test-ask "How many?"))
             (sessions (lambda () (length (plist-get (rlm-call-sync "session/list" nil) :sessions))))
             two)
        (should (string-match-p "^41$" (rlm-test-complete one)))
        (save-window-excursion
          (with-current-buffer one
            (setq two (rlm-follow-up rlm--run "And one more?"))))
        (rlm-wait two rlm-test-patience)
        (should (equal "42" (rlm-run-answer two)))
        (should (= 1 (funcall sessions)))
        (rlm-test-complete (rlm--answer-buffer two))
        (kill-buffer one)
        (should (= 1 (funcall sessions)))
        (kill-buffer (rlm--answer-buffer two))
        (rlm-test-await (= 0 (funcall sessions)))))))

(ert-deftest rlm-again-retry-with-another-model ()
  "The same question goes to the model that was chosen, and both answers stand side by side.
The same model is asked anew too, not the cache."
  (rlm-test-with-daemon (:scripts '(("root" . ("By root." "By root anew.")) ("sub" . ("By sub.")))
                                 :roots '("box/root" "box/sub"))
    (rlm-test-with-notes "text\n"
      (let ((one (rlm-test-ask "Who?")))
        (rlm-test-complete one)
        (should (member "box/sub" (rlm--models)))
        (save-window-excursion
          (with-current-buffer one
            (let ((two (rlm-retry rlm--run "box/sub")))
              (rlm-wait two rlm-test-patience)
              (should-not (rlm-run-error two))
              (should (equal "By sub." (rlm-run-answer two)))
              (should (equal "Who?" (rlm-run-question two)))
              (should (equal "By root anew." (rlm-run-answer (rlm-wait (rlm-retry rlm--run "box/root")
                                                                       rlm-test-patience))))
              (let ((copies (mapcar #'rlm--answer-copy (list rlm--run two))))
                (should (equal '("By root.\n" "By sub.\n")
                               (mapcar #'rlm-test-answer-text copies)))))))))))

(defconst rlm-test-limited
  '("```repl\nx = 41\nprint(x)\n```" "Nearly: 41." "```repl\ny = x + 1\n```\nFINAL_VAR(y)")
  "Replies of a root that may take two turns, tells in the second what it has, and may go on.")

(ert-deftest rlm-again-a-limited-run-goes-on ()
  "What a limit has ended goes on where it stopped: the answer takes the partial one's place, all else stays."
  (rlm-test-with-daemon (:scripts `(("root" . ,rlm-test-limited)))
    (rlm-test-with-notes "text\n"
      (let* ((rlm-strategy "rlm")
             (rlm-limits '(:turns 2))
             (buffer (rlm-test-ask "How many?"))
             (run (rlm-test-run-of buffer))
             (partial (progn
                        (should (string-match-p "^Nearly: 41\\.$" (rlm-test-complete buffer)))
                        ;; Why it ended is said once.
                        (should (= 2 (length (split-string (rlm-test-answer-text buffer) "limit of 2 turns"))))
                        (rlm--one-line (plist-get (rlm-run-receipt run) :summary) 1000))))
        (with-current-buffer buffer
          (goto-char (point-max))
          (insert "A line of mine.\n")
          (should (equal "turns" (rlm--run-limit run)))
          (should (string-match-p "partial .*\\[go on\\].*C-c > goes on" (rlm--header-line)))
          (let ((current-prefix-arg '(4)))
            (cl-letf (((symbol-function 'read-number)
                       (lambda (prompt) (should (equal "How many more turns: " prompt)) 3)))
              (call-interactively (key-binding (kbd "C-c >"))))))
        (rlm-test-await (or (rlm-run-live-p run) (equal "42" (rlm-run-answer run))))
        (let ((text (rlm-test-complete buffer)))
          (should (string-match-p "^42$" text))
          (should-not (string-search "Nearly" text))
          (should-not (string-search "Limit reached" text))
          ;; The old receipt went with the old answer.
          (should (= 2 (length (split-string text (regexp-quote (plist-get (rlm-run-receipt run) :summary))))))
          (should-not (string-search partial text))
          (should (string-search "A line of mine.\n" text)))
        (should (equal "42" (rlm-run-answer run)))
        (should (eq 'done (rlm-run-link run)))
        (should-error (rlm-run-continue run) :type 'user-error)))))

(ert-deftest rlm-again-a-continued-run-of-another-emacs ()
  "A run that an earlier Emacs asked and continued is opened with its last answer, and another from the list."
  (rlm-test-with-daemon (:scripts `(("root" . ,(append rlm-test-limited rlm-test-limited))))
    (rlm-test-with-notes "text\n"
      (let* ((rlm-strategy "rlm")
             (rlm-limits '(:turns 2))
             (one (rlm-query "One?" (current-buffer)))
             two)
        (rlm-wait one rlm-test-patience)
        (rlm-continue one '(:turns 3))
        (rlm-test-await (equal "42" (rlm-run-answer one)))
        (setq two (rlm-query "Two?" (current-buffer) :fresh t))
        (rlm-wait two rlm-test-patience)
        (clrhash rlm--runs)
        (save-window-excursion
          (rlm-open-run (rlm-run-id one))
          (rlm-test-await (rlm-run-find (rlm-run-id one)))
          (let ((text (rlm-test-complete (rlm--answer-buffer (rlm-run-find (rlm-run-id one))))))
            (should (string-match-p "^42$" text))
            (should-not (string-search "Nearly" text)))
          (rlm-list-runs)
          (rlm-test-await (string-search "Two?" (buffer-string)))
          (goto-char (point-min))
          (search-forward "Two?")
          (call-interactively (key-binding ">"))
          (rlm-test-await (rlm-run-find (rlm-run-id two)))
          (let ((run (rlm-run-find (rlm-run-id two))))
            (rlm-test-await (equal "42" (rlm-run-answer run)))
            (rlm-trace run)
            (rlm-test-await (string-match-p "Ended: partial\\(?:.*\n\\)*.*Continued\n\\(?:.*\n\\)*.*Ended: answered"
                                            (buffer-string)))))))))

(ert-deftest rlm-again-an-emacs-that-was-restarted ()
  "A run that this Emacs does not know is opened from the journal, and its links work."
  (rlm-test-with-daemon (:scripts `(("root" . ("> quick brown NEEDLE lies\n\nThere." ,rlm-test-slowly))) :slots 2)
    (let ((file (rlm-test-file "notes.txt" "one\nthe quick brown NEEDLE lies\n")))
      (save-window-excursion
        (with-current-buffer (find-file-noselect file)
          (let* ((done (rlm-test-ask "Where?"))
                 (id (rlm-run-id (rlm-test-run-of done))))
            (rlm-test-complete done)
            (let* ((slow (rlm-test-ask "Slowly?"))
                   (slow-id (rlm-run-id (rlm-test-run-of slow))))
              (rlm-test-await-words slow "Slowly the")
              (let ((rlm-on-kill 'detach))
                (mapc #'kill-buffer (list done slow (current-buffer))))
              (clrhash rlm--runs)
              (rlm-disconnect)
              (rlm-open-run id)
              (rlm-test-await (rlm-run-find id))
              (let ((text (rlm-test-complete (rlm--answer-buffer (rlm-run-find id)))))
                (should (string-match-p "\\`\\* Where\\?" text))
                (should (string-match-p "^There\\.$" text))
                (should (string-match-p "^1\\. \\[\\[rlm:.*notes\\.txt:2" text)))
              (set-buffer (rlm--answer-buffer (rlm-run-find id)))
              (next-error)
              (set-buffer (window-buffer))
              (should (equal "notes.txt" (buffer-name)))
              (should (looking-at-p "quick brown NEEDLE"))
              ;; One that is still going streams on.
              (rlm-link-follow slow-id)
              (rlm-test-await (rlm-run-find slow-id))
              (should (string-match-p
                       "398 399 400 and that is all"
                       (rlm-test-complete (rlm--answer-buffer (rlm-run-find slow-id))))))))))))

(ert-deftest rlm-again-the-daemon-comes-back ()
  "When the daemon is back the run is followed again by itself."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly))))
    (rlm-test-with-notes "text\n"
      (let* ((rlm-reattach t)
             (buffer (rlm-test-ask "Q?"))
             (run (rlm-test-run-of buffer)))
        (rlm-test-await-words buffer "Slowly the")
        (rlm-test-kill daemon)
        (rlm-test-await (eq 'lost (rlm-run-link run)))
        (rlm-test-daemon)
        (rlm-test-await (not (eq 'lost (rlm-run-link run))))
        (rlm-test-complete buffer)))))

(ert-deftest rlm-again-sync ()
  "From Lisp one may wait for the answer; a failure is an error with its reason."
  (rlm-test-with-daemon (:scripts '(("root" . ("Forty-two." (:text "no" :status 404)))))
    (should (equal "Forty-two." (rlm-query-sync "What?" "a text" :strategy "direct")))
    (let ((told (should-error (rlm-query-sync "What else?" "a text" :strategy "direct")
                              :type 'user-error)))
      (should (equal (cadr told)
                     (rlm-error-text (seq-some #'rlm-run-error (hash-table-values rlm--runs))))))))

(ert-deftest rlm-again-sync-gives-up ()
  "When nobody waits any more the run is cancelled."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "late" :latency 100)))))
    (should-error (rlm-query-sync "What?" "a text" :timeout 0.5) :type 'user-error)
    (let ((run (car (hash-table-values rlm--runs))))
      (rlm-test-await (not (rlm-run-live-p run)))
      (should (eq 'cancelled (rlm-run-state run))))))

(ert-deftest rlm-again-echo ()
  "With a negative prefix argument the answer goes to the kill ring, and no buffer is made."
  (rlm-test-with-daemon (:scripts '(("root" . ("Forty-two."))))
    (rlm-test-with-notes "text\n"
      (let ((before (buffer-list))
            (run (rlm-query "What?" (current-buffer) :display 'echo)))
        (rlm-wait run rlm-test-patience)
        (should (equal "Forty-two." (current-kill 0)))
        (should-not (seq-filter (lambda (buffer) (with-current-buffer buffer (derived-mode-p 'rlm-answer-mode)))
                                (seq-difference (buffer-list) before)))))))

;;;; Using an answer

(defun rlm-test-fake-run (answer &optional source)
  "Return a run that is over with ANSWER, about SOURCE."
  (let ((run (rlm--run-make :id (rlm--new-id) :question "Q?" :answer answer
                            :socket (rlm-socket-path)
                            :sources (and source (list source))
                            :state 'ended :link 'done)))
    (puthash (rlm-run-id run) run rlm--runs)))

(ert-deftest rlm-again-insert-and-discard ()
  "What was inserted goes in one step, whatever was edited around and inside."
  (rlm-test-with-home
    (with-temp-buffer
      (org-mode)
      (buffer-enable-undo)
      (insert "before\n\nafter\n")
      (goto-char 8)
      (rlm-insert-answer (rlm-test-fake-run "# Head\n\nIt **is** so.\n"))
      (should (equal "before\n*Head*\n\nIt *is* so.\nafter\n" (buffer-string)))
      (goto-char (point-min))
      (insert "more ")
      (search-forward "is")
      (undo-boundary)
      (rlm-discard-answer)
      (should (equal "more before\n\nafter\n" (buffer-string)))
      (should-error (rlm-discard-answer) :type 'user-error))))

(ert-deftest rlm-again-replace-accept-and-reject ()
  "A proposal leaves the text alone until it is accepted, and then is one change."
  (rlm-test-with-home
    (save-window-excursion
      (with-temp-buffer
        (buffer-enable-undo)
        (insert "def f():\n    pass\nrest\n")
        (let ((run (rlm-test-fake-run "```python\ndef f():\n    return 1\n```"
                                      (rlm-source-from (current-buffer) 1 19)))
              (before (buffer-string)))
          (rlm-replace-source run)
          (should (equal before (buffer-string)))
          (should (eq 'rlm-accept (key-binding (kbd "C-c C-c"))))
          (rlm-reject)
          (should (equal before (buffer-string)))
          (rlm-replace-source run)
          (undo-boundary)
          (rlm-accept)
          (should (equal "def f():\n    return 1\nrest\n" (buffer-string)))
          (undo-boundary)
          (primitive-undo 1 buffer-undo-list)
          (should-error (rlm-accept) :type 'user-error))))))

(ert-deftest rlm-again-store-and-export-links ()
  "The citation at point, or the answer, is stored as a link; HTML shows the quote."
  (rlm-test-with-daemon (:scripts '(("root" . ("> quick <b> & \"NEEDLE\" lies\n\nThere."))))
    (rlm-test-with-notes "the quick <b> & \"NEEDLE\" lies\n"
      (let* ((buffer (rlm-test-ask "Where?"))
             (id (rlm-run-id (rlm-test-run-of buffer)))
             (org-stored-links nil))
        (rlm-test-complete buffer)
        (with-current-buffer buffer
          (goto-char (point-min))
          (call-interactively #'org-store-link)
          (should (equal (list (concat "rlm:" id) "Where?") (car org-stored-links)))
          (search-forward "[[rlm:")
          (call-interactively #'org-store-link)
          (should (equal (list (concat "rlm:" id "::1") "notes.txt:1") (car org-stored-links)))
          (require 'ox-html)
          (let ((html (org-export-string-as
                       (buffer-substring (line-beginning-position) (line-end-position))
                       'html t)))
            (should (string-match-p "<cite title=\"quick &lt;b&gt; &amp; &quot;NEEDLE&quot; lies\">notes.txt:1</cite>" html))))))))

(ert-deftest rlm-again-unread-stretches ()
  "Stretches that no model read are links that make them the region."
  (rlm-test-with-daemon
      (:scripts '(("root" . ("```repl\nr = llm_query('say ' + context[:100])\n```\nFINAL_VAR(r)")))
       :rules '(("." . "Said.")))
    (rlm-test-with-notes (mapconcat (lambda (n) (format "Line number %d of the text." n))
                                    (number-sequence 1 50) "\n")
      (let* ((rlm-strategy "rlm")
             (buffer (rlm-test-ask "Q?"))
             (text (rlm-test-complete buffer)))
        (should (string-match "Not read by a model: \\[\\[rlm:\\([^]]*unread-1\\)\\]\\[notes.txt:[0-9]+–50\\]\\]" text))
        (let ((path (match-string 1 text))
              (transient-mark-mode t))
          (save-window-excursion
            (rlm-link-follow path)
            (set-buffer "notes.txt")
            (should (use-region-p))
            (should (= (point-max) (region-end)))))))))

;;;; The menu

(ert-deftest rlm-again-what-the-menu-chooses ()
  "What is chosen in the menu goes to the daemon, with its types."
  (should (equal '(:profile "fast" :strategy "rlm" :root ("box/root") :session "s"
                            :limits (:turns 3 :seconds 60) :fresh t)
                 (rlm--menu-choices '("--profile=fast" "--strategy=rlm" "--root=box/root" "--session=s"
                                      "--turns=3" "--seconds=60" "--fresh"))))
  (let ((rlm--choices '(:strategy "rlm" :root ("box/root") :limits (:turns 3)))
        (rlm-sub-models '("box/sub")))
    (should (equal '(:strategy "rlm" :root ["box/root"] :sub ["box/sub"] :limits (:turns 3))
                   (rlm--params (rlm--choices-with nil))))))

(ert-deftest rlm-again-profiles ()
  "Who asks comes before the menu, that before the profile, that before the options; each limit by itself."
  (let ((rlm-profiles '(("p" :strategy "map" :confirm "accept" :limits (:turns 5 :seconds 9) :private t)))
        (rlm-profile "p")
        (rlm-limits '(:seconds 1 :tokens 77))
        (rlm-strategy "direct"))
    (let ((chosen (rlm--choices-with '(:limits (:turns 2)))))
      (should (equal "map" (plist-get chosen :strategy)))
      (should (equal "accept" (plist-get (rlm--params chosen) :confirm)))
      (should (plist-get chosen :private))
      (should (equal '(2 9 77) (mapcar (lambda (key) (plist-get (plist-get chosen :limits) key))
                                       '(:turns :seconds :tokens)))))
    (should (equal "quote" (plist-get (let ((rlm--choices '(:strategy "quote"))) (rlm--choices-with nil)) :strategy)))
    (should (string-match-p "no profile q; .*has p"
                            (cadr (should-error (rlm--choices-with '(:profile "q")) :type 'user-error))))))

(ert-deftest rlm-again-a-private-profile-stays-private ()
  "What was asked with a private profile is private at the daemon, asked again too; a kept context is refused."
  (rlm-test-with-daemon (:scripts '(("root" . ("One." "Two." "Three."))))
    (rlm-test-with-notes "some text\n"
      (let* ((open (rlm-query "Open?" (current-buffer)))
             (closed (progn (rlm-wait open rlm-test-patience)
                            (rlm-query "Closed?" (current-buffer) :profile "private"))))
        (rlm-wait closed rlm-test-patience)
        (insert "and more, which the daemon has not seen\n")
        (let ((again (rlm-query "Again?" (rlm--sources-again (rlm-run-sources closed)))))
          (rlm-wait again rlm-test-patience)
          (should (equal '(:json-false t t)
                         (mapcar (lambda (run) (plist-get (rlm-test-at-daemon run) :private))
                                 (list open closed again))))))
      (should-error (rlm-query "Q?" (rlm--source-from-context "kept") :profile "private")
                    :type 'user-error))))

(ert-deftest rlm-again-programs-are-strategies ()
  "A program of the user is offered among the strategies, with what it says of itself; one that is broken is not."
  (rlm-test-with-daemon (:scripts '(("root" . ("Yes."))))
    (let ((folder (expand-file-name "rlmd/programs" (getenv "XDG_CONFIG_HOME"))))
      (make-directory folder t)
      (with-temp-file (expand-file-name "mine.py" folder)
        (insert "\"\"\"Says how long it is.\"\"\"\nFINAL(str(len(context)))\n"))
      (with-temp-file (expand-file-name "broken.py" folder)
        (insert "\"\"\"Broken.\"\"\"\nthis is (\n")))
    (should (equal '(("mine" . "Says how long it is.")) (rlm--programs)))
    (let (offered)
      (cl-letf (((symbol-function 'completing-read)
                 (lambda (_ table &rest _)
                   (setq offered (all-completions "" table))
                   "mine")))
        (should (equal "5" (rlm-query-sync "How long?" "12345" :strategy (rlm--read-strategy "How: ")))))
      (should (equal '("auto" "direct" "rlm" "map" "quote" "mine") offered)))))

(ert-deftest rlm-again-loading-costs-nothing ()
  "The door brings none of the rooms: no Org, no jsonrpc, no transient."
  (let ((code "(progn (require 'rlm) (princ (seq-filter #'featurep '(org jsonrpc transient rlm-rpc rlm-answer))) (unless (commandp 'rlm) (princ 'no)))"))
    (with-temp-buffer
      (call-process (expand-file-name invocation-name invocation-directory) nil t nil
                    "-Q" "--batch" "-L" (expand-file-name "elisp" rlm-test-root)
                    "--eval" code)
      (should (equal "nil" (buffer-string))))))

(provide 'rlm-again-test)
;;; rlm-again-test.el ends here
