;;; rlm-cite-test.el --- From a citation to its place -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Runs are made by hand here; that the daemon's offsets are ours is
;; for rlm-context-test.el and rlm-daemon-test.el.

;;; Code:

(require 'rlm-test)
(require 'rlm-cite)

(defmacro rlm-test-with-cited (text quotes &rest body)
  "Run BODY with a `run' that cites QUOTES in a buffer that holds TEXT.
A quote is a string, or a list of string and offset.  `source' is
the buffer, `answer' the answer buffer."
  (declare (indent 2) (debug t))
  `(rlm-test-with-home
     (let* ((source (generate-new-buffer "notes.txt"))
            (run (with-current-buffer source
                   (insert ,text)
                   (rlm-test-cite-run (current-buffer) ,quotes)))
            (answer (rlm--answer-make run)))
       (rlm--run-over run 'ended)
       (rlm-test-await (with-current-buffer answer
                         (null (rlm--stream-closing rlm--answer-stream))))
       (save-window-excursion
         (switch-to-buffer answer)
         ,@body))))

(defun rlm-test-cite-run (buffer quotes)
  "Return a run about the accessible part of BUFFER that cites QUOTES."
  (let* ((source (rlm-source-from buffer))
         (run (rlm--run-make :id (rlm--new-id) :socket "/tmp/none" :question "Q"
                             :sources (list source) :answer "The answer."
                             :outcome "answered"
                             :receipt '(:summary "Read 100 % of it.")))
         (number 0))
    (setf (rlm-source-name source) "notes"
          (rlm-run-citations run)
          (mapcar (lambda (quote)
                    (let* ((text (if (consp quote) (car quote) quote))
                           (start (if (consp quote) (cadr quote)
                                    (string-match (regexp-quote text)
                                                  (rlm--source-string source)))))
                      (list :number (cl-incf number) :quote text
                            :verified (if start t :json-false)
                            :match (if start "exact" "none")
                            :context (and start "notes") :document "notes.txt"
                            :start start :end (and start (+ start (length text)))
                            :locator (and start (list :label "notes.txt:1" :line 1)))))
                  quotes))
    (puthash (rlm-run-id run) run rlm--runs)))

(defun rlm-test-here ()
  "Return the selected window's buffer name and the text at its point."
  (with-current-buffer (window-buffer)
    (list (buffer-name) (buffer-substring-no-properties
                         (window-point) (min (point-max) (+ 6 (window-point)))))))

(ert-deftest rlm-cite-next-error-walks-the-quotes ()
  "M-g n and M-g p go through the citations, from any buffer, and stop at the ends."
  (rlm-test-with-cited "zero ALPHA1 one BRAVO2 two CHARLI three"
      '("ALPHA1" "BRAVO2" "CHARLI")
    (next-error)
    (should (equal (rlm-test-here) '("notes.txt" "ALPHA1")))
    (next-error)
    (should (equal (rlm-test-here) '("notes.txt" "BRAVO2")))
    (next-error)
    (should (equal (rlm-test-here) '("notes.txt" "CHARLI")))
    (should-error (next-error) :type 'user-error)
    (previous-error)
    (should (equal (rlm-test-here) '("notes.txt" "BRAVO2")))
    (first-error)
    (should (equal (rlm-test-here) '("notes.txt" "ALPHA1")))
    (with-current-buffer answer
      (should (looking-at-p "1\\. \\[\\[rlm:")))))

(ert-deftest rlm-cite-the-answer-stays-in-sight ()
  "Going through the places uses the window of the text, never that of the answer."
  (rlm-test-with-cited "zero ALPHA1 one BRAVO2 two" '("ALPHA1" "BRAVO2")
    (delete-other-windows)
    (let ((above (split-window)))
      (next-error)                      ; the answer is selected
      (should (equal (rlm-test-here) '("notes.txt" "ALPHA1")))
      (should (get-buffer-window answer))
      (next-error)                      ; the text is selected
      (should (equal (rlm-test-here) '("notes.txt" "BRAVO2")))
      (should (get-buffer-window answer))
      (switch-to-buffer "*scratch*")    ; in the window of the text
      (previous-error)
      (should (equal (rlm-test-here) '("notes.txt" "ALPHA1")))
      (should (eq above (selected-window)))
      (select-window (split-window))    ; a third one, for something else
      (switch-to-buffer "*scratch*")
      (next-error)
      (should (eq above (selected-window)))
      (should (equal (rlm-test-here) '("notes.txt" "BRAVO2")))
      (should (get-buffer-window "*scratch*")))))

(ert-deftest rlm-cite-the-answer-stays-for-who-wants-one-window ()
  "Also where buffers are to be shown in the selected window the answer stays."
  (rlm-test-with-cited "zero ALPHA1 one" '("ALPHA1")
    (delete-other-windows)
    (with-selected-window (split-window)
      (switch-to-buffer "*scratch*"))
    (let ((display-buffer-base-action '(display-buffer-same-window)))
      (next-error)
      (should (equal (rlm-test-here) '("notes.txt" "ALPHA1")))
      (should (get-buffer-window answer)))))

(ert-deftest rlm-cite-links-lead-there ()
  "The link of a citation goes to its place, and the quote is in the echo area."
  (rlm-test-with-cited "zero ALPHA1 one BRAVO2 two" '("ALPHA1" "BRAVO2")
    (goto-char (point-min))
    (search-forward "[[rlm:")
    (search-forward "[[rlm:")
    (org-open-at-point)
    (should (equal (rlm-test-here) '("notes.txt" "BRAVO2")))
    (with-current-buffer "*Messages*"
      (should (string-match-p "\\[2/2\\] notes.txt:1: “BRAVO2”" (buffer-string))))))

(ert-deftest rlm-cite-places-go-along-with-edits ()
  "What is edited after the answer came takes the places with it."
  (rlm-test-with-cited "x ALPHA1 y ALPHA1 z" '(("ALPHA1" 11))
    (with-current-buffer source
      (goto-char (point-min))
      (insert "ALPHA1 was put in front, with some more text. "))
    (next-error)
    (should (equal (rlm-test-here) '("notes.txt" "ALPHA1")))
    (with-current-buffer source
      (should (looking-at-p "ALPHA1 z")))
    (should (string-match-p "\\`\\[1/1\\] notes.txt:1: " (rlm-test-last-message)))))

(ert-deftest rlm-cite-an-edited-buffer-is-searched ()
  "After edits while the run was going the nearest place that says it is found."
  (rlm-test-with-home
    (with-temp-buffer
      (insert "ALPHA1 x y ALPHA1 z ALPHA1")
      (let ((run (rlm-test-cite-run (current-buffer) '(("ALPHA1" 11)))))
        (goto-char (point-min))
        (forward-char 8)
        (insert "new ")
        (rlm--run-over run 'ended)
        (save-window-excursion
          (switch-to-buffer "*scratch*")
          (should (string-match-p "(moved)" (rlm--citation-visit
                                             run (car (rlm-run-citations run))))))
        (should (looking-at-p "ALPHA1 z"))))))

(defun rlm-test-last-message ()
  "Return the last message that is not Emacs' own about a locus."
  (with-current-buffer "*Messages*"
    (goto-char (point-max))
    (re-search-backward "^\\[[0-9]+/[0-9]+\\].*")
    (match-string 0)))

(ert-deftest rlm-cite-the-nearest-place-wins ()
  "Of several places the nearest to the expected one is taken, before or after it."
  (with-temp-buffer
    (insert "word 1 ------ word 2 ------------------------- word 3")
    (let ((place (lambda (near) (car (rlm--find-quote "word" near 1 (point-max))))))
      (should (equal '(1 1 15 15 48) (mapcar place '(2 7 10 25 40))))
      (should-not (rlm--find-quote "none" 5 1 (point-max)))
      ;; Outside of the text that was asked about it is not looked for.
      (should-not (rlm--find-quote "word" 20 18 40)))))

(ert-deftest rlm-cite-typesetting-is-overlooked ()
  "Other white space, case, quotes and dashes are the same place."
  (rlm-test-with-cited "He said, “Don’t — ever —\n   do THAT”, and left."
      '(("said, \"don't - ever - do that\"" 3))
    (next-error)
    (should (equal (rlm-test-here) '("notes.txt" "said, ")))))

(ert-deftest rlm-cite-what-is-gone-is-said ()
  "A quote that is no longer there moves nothing and is told."
  (rlm-test-with-cited "zero ALPHA1 one" '("ALPHA1")
    (with-current-buffer source
      (erase-buffer)
      (insert "all is new"))
    (next-error)
    (should (eq (current-buffer) answer))
    (should (string-match-p "no longer there" (rlm-test-last-message)))))

(ert-deftest rlm-cite-unverified-quotes-are-marked ()
  "A quote that was never found is listed, with its face, and leads nowhere."
  (rlm-test-with-cited "zero ALPHA1 one" '("ALPHA1" "invented words")
    (should (string-match-p "2\\. \\[\\[rlm:[^]]+::2\\]\\[not found in the text\\]\\]"
                            (buffer-string)))
    (should (eq 'rlm-unverified (rlm--link-face (concat (rlm-run-id run) "::2"))))
    (should (eq 'org-link (rlm--link-face (concat (rlm-run-id run) "::1"))))
    (next-error 2)
    (should (eq (current-buffer) answer))
    (should (string-match-p "not found in the text" (rlm-test-last-message)))))

(ert-deftest rlm-cite-a-region-counts-from-its-start ()
  "Offsets of a narrowed buffer count from its first character; it is widened to show them."
  (rlm-test-with-home
    (with-temp-buffer
      (rename-buffer "notes.txt" t)
      (insert "line 1\nline 2 ALPHA1\nline 3 ALPHA1\n")
      (goto-char (point-min))
      (forward-line 2)
      (narrow-to-region (point) (point-max))
      (let* ((run (rlm-test-cite-run (current-buffer) '("ALPHA1")))
             (citation (car (rlm-run-citations run))))
        (should (equal "notes.txt:3" (rlm--citation-label run citation)))
        (widen)
        (narrow-to-region 1 5)
        (save-window-excursion
          (switch-to-buffer "*scratch*")
          (should-not (string-search "moved" (rlm--citation-visit run citation)))
          (should (= 3 (line-number-at-pos nil t)))
          (should (looking-at-p "ALPHA1")))))))

(ert-deftest rlm-cite-a-killed-buffer-is-visited-again ()
  "If the buffer is gone its file is visited."
  (rlm-test-with-home
    (let* ((file (rlm-test-file "notes.txt" "zero ALPHA1 one\n"))
           (buffer (find-file-noselect file))
           (run (rlm-test-cite-run buffer '("ALPHA1"))))
      (kill-buffer buffer)
      (save-window-excursion
        (rlm--citation-visit run (car (rlm-run-citations run)))
        (should (equal buffer-file-name file))
        (should (looking-at-p "ALPHA1"))))))

(ert-deftest rlm-cite-a-strange-text-cannot-break-the-list ()
  "Quotes and labels full of Org syntax stay in their line and do nothing."
  (rlm-test-with-cited "x" '("a ]] b [[shell:ls][c]]\n* d\n:END:\n#+call: e()")
    (should (= 2 (length (org-map-entries #'point))))
    (let ((line (progn (goto-char (point-min))
                       (re-search-forward "^1\\. ")
                       (buffer-substring (point) (line-end-position)))))
      (should (string-match-p (concat "\\[" rlm--zwsp "\\[shell") line)))
    (should (equal "Read 100 % of it."
                   (string-trim (save-excursion
                                  (goto-char (point-max))
                                  (forward-line -1)
                                  (buffer-substring (point) (point-max))))))))

(ert-deftest rlm-cite-a-strange-name-cannot-break-a-link ()
  "The label of a citation, which a buffer's name is part of, is one link."
  (with-temp-buffer
    (rename-buffer "a]] [[shell:ls][b" t)
    (insert "zero ALPHA1 one")
    (let ((line (nth 2 (rlm--citation-lines (rlm-test-cite-run (current-buffer) '("ALPHA1"))))))
      (should (string-match-p "\\`1\\. \\[\\[rlm:[^]]+\\]\\[[^][]+:1\\]\\] “ALPHA1”\\'" line)))))

(ert-deftest rlm-cite-a-link-of-a-former-session ()
  "A link in a saved file asks the daemon for the run it names."
  (rlm-test-with-server
    (let ((file (rlm-test-file "notes.txt" "zero ALPHA1 one\n"))
          (id "01234567-89ab-4cde-8f01-23456789abcd"))
      (rlm-test-answer "run/show"
                       (list :run (list :run_id id :state "ended")
                             :answer "A." :receipt nil
                             :citations (vector (list :number 1 :quote "ALPHA1" :verified t
                                                      :context "gone" :start 5 :end 11
                                                      :locator (list :label "notes.txt:1"
                                                                     :path file :line 1)))))
      (save-window-excursion
        (rlm-link-follow (concat id "::1"))
        (rlm-test-await (equal file (buffer-file-name (window-buffer))))
        (should (equal (rlm-test-here) '("notes.txt" "ALPHA1"))))
      (should-error (rlm-link-follow "nonsense") :type 'user-error))))

(ert-deftest rlm-test-answer-says-no-note-twice ()
  "A note that the answer holds, however it is filled, is not told again."
  (with-temp-buffer
    (insert "Some text")
    (let ((run (rlm-test-cite-run (current-buffer) nil)))
      (setf (rlm-run-answer run) "The answer.\n\nNo model\nwas used."
            (rlm-run-notes run) '("A cell was lost." "No model was used."))
      (should (equal (rlm--note-lines run) '("" "*Note:* A cell was lost.")))
      (setf (rlm-run-why run) "Out of turns."
            (rlm-run-notes run) '("Limit reached: Out of turns." "A cell was lost."))
      (should (equal (rlm--note-lines run) '("" "*Note:* A cell was lost."))))))

(provide 'rlm-cite-test)
;;; rlm-cite-test.el ends here
