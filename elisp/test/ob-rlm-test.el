;;; ob-rlm-test.el --- Questions in Org documents -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Blocks that run while one writes, results that survive: running
;; again, hostile answers, failures, export.

;;; Code:

(require 'rlm-test)
(require 'ob-rlm)
(require 'ob-emacs-lisp)

(setq org-confirm-babel-evaluate nil)

(defmacro rlm-test-in-org (text &rest body)
  "Run BODY in an Org buffer that holds TEXT, point at the first block."
  (declare (indent 1) (debug t))
  `(with-temp-buffer
     (rename-buffer "doc.org" t)
     (insert ,text)
     (org-mode)
     (goto-char (point-min))
     (search-forward "#+begin_src")
     ,@body))

(defun rlm-test-execute ()
  "Execute the block at point; return when its result is there."
  (org-babel-execute-src-block)
  (rlm-test-settle))

(defun rlm-test-settle ()
  "Wait until no block is running; return the buffer's text."
  (rlm-test-await (null rlm--babel-running))
  (buffer-substring-no-properties (point-min) (point-max)))

(defconst rlm-test-block
  "* Notes\nthe quick brown NEEDLE lies\n\n#+begin_src rlm\nWhere is it?\n#+end_src\n"
  "A block that asks of its subtree.")

(ert-deftest rlm-babel-the-result-comes-by-itself ()
  "A block returns at once; the answer takes the placeholder's place, in Org, with its sources."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "## There\n\n> quick brown NEEDLE lies\n\nIt **is**." :latency 0.3)))))
    (rlm-test-in-org rlm-test-block
      (org-babel-execute-src-block)
      (should (string-match-p "^\\[rlm .*running" (buffer-string)))
      (should-error (org-babel-execute-src-block) :type 'user-error)
      (insert " ")                      ; one goes on writing
      (delete-char -1)
      (let ((text (rlm-test-settle)))
        (should-not (string-search "running" text))
        (should (string-match-p "#\\+RESULTS:\n:results:\n\\*There\\*\n" text))
        (should (string-match-p "^It \\*is\\*\\.$" text))
        (should (string-match-p "^1\\. \\[\\[rlm:[^]]+::1\\]\\[[^]]+\\]\\] “quick brown" text))
        (should (string-match-p ":end:\n\\'" text))))))

(ert-deftest rlm-babel-an-answer-grows-in-its-drawer ()
  "While a block runs its answer grows under the placeholder, made harmless; then it stands alone.
What one writes meanwhile stays."
  (rlm-test-with-daemon
      (:scripts `(("root" . ((:text ,(concat "# Head\n:end:\n" (plist-get rlm-test-slowly :text)) :chunk 12 :pause 0.02)))))
    (rlm-test-in-org (concat rlm-test-block "\nAfter the block.\n")
      (org-babel-execute-src-block)
      (rlm-test-await (string-search "Slowly the answer" (buffer-string)))
      (goto-char (point-max))
      (insert "Written meanwhile.\n")
      (rlm-test-await (string-search " 40 41 42" (buffer-string)))
      (should (string-match-p
               "#\\+RESULTS:\n:results:\n\\[rlm [0-9a-f]+ running; [^]]+\\]\n\\*Head\\*\n[^\n]*end:[^\n]*\nSlowly the [^\n]+\n:end:\n"
               (buffer-string)))
      (should (string-suffix-p "After the block.\nWritten meanwhile.\n" (buffer-string)))
      ;; The drawer is one that Org can find whole, at any time.
      (should (string-suffix-p ":end:\n"
                               (save-excursion
                                 (goto-char (point-min))
                                 (search-forward "#+begin_src")
                                 (goto-char (org-babel-where-is-src-block-result))
                                 (forward-line 1)
                                 (buffer-substring (point) (org-babel-result-end)))))
      (let ((text (rlm-test-settle)))
        (should-not (string-search "running" text))
        (should (= 1 (how-many "Slowly the" (point-min) (point-max))))
        (should-not (seq-find (lambda (timer) (eq #'rlm--stream-tick (timer--function timer))) timer-list))
        (should (string-match-p "399 400 and that is all\\.\n:end:\n\nAfter the block\\.\nWritten" text))))))

(ert-deftest rlm-babel-a-result-that-is-gone-is-not-grown ()
  "Who deletes the drawer while an answer grows gets no text anywhere else, and the result at the end."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-slowly))))
    (rlm-test-in-org (concat rlm-test-block "\nAfter the block.\n")
      (org-babel-execute-src-block)
      (rlm-test-await (string-search "Slowly the answer" (buffer-string)))
      ;; What has come and is not yet inserted does not come afterwards.
      (let ((run (car (hash-table-values rlm--runs))))
        (rlm--run-tell run 'delta (cons (cdar (rlm-run-texts run)) "piece on its way")))
      (org-babel-remove-result)
      (let ((without (buffer-string))
            (heard 0)
            (run (car (hash-table-values rlm--runs))))
        (rlm--run-observe run (lambda (_ event _data) (when (eq event 'delta) (cl-incf heard))))
        (rlm-test-await (> heard 20))
        (should (equal without (buffer-string))))
      (should (string-match-p "#\\+RESULTS:\n:results:\nSlowly.*that is all\\.\n:end:\n" (rlm-test-settle))))))

(ert-deftest rlm-babel-a-block-may-say-by-which-choices ()
  "`:profile' and `:budget' become the run's, what the block says itself comes first; nonsense is refused."
  (rlm-test-with-daemon (:scripts '(("root" . ("Yes."))))
    (let ((rlm-profiles '(("mine" :strategy "direct" :private t :limits (:turns 7 :seconds 50)))))
      (rlm-test-in-org (string-replace "src rlm" "src rlm :profile mine :budget 1.5k :seconds 33" rlm-test-block)
        (rlm-test-execute)
        (let ((run (car (hash-table-values rlm--runs))))
          (should (rlm-source-private (car (rlm-run-sources run))))
          (should (equal '(:turns 7 :seconds 33 :tokens 1500)
                         (let ((limits (plist-get (rlm-run-params run) :limits)))
                           (mapcan (lambda (key) (list key (plist-get limits key))) (list :turns :seconds :tokens)))))
          (should (equal "direct" (plist-get (rlm-run-params run) :strategy)))
          (should (eq t (plist-get (rlm-test-at-daemon run) :private)))))
      (rlm-test-in-org (string-replace "src rlm" "src rlm :budget $0.25" rlm-test-block)
        (rlm-test-execute)
        (should (cl-find-if (lambda (run)
                              (equal '(:money 0.25) (plist-get (rlm-run-params run) :limits)))
                            (hash-table-values rlm--runs))))
      (dolist (wrong '(":profile nobody" ":budget lots" ":budget $lots"))
        (rlm-test-in-org (string-replace "src rlm" (concat "src rlm " wrong) rlm-test-block)
          (should-error (org-babel-execute-src-block) :type 'user-error)
          (should-not rlm--babel-running))))))

(ert-deftest rlm-babel-hostile-answers-are-replaced-whole ()
  "Headings, drawer ends and blocks in an answer leave nothing behind when the block runs again."
  (rlm-test-with-daemon
      (:scripts '(("root" . ("* Heading\n:end:\n#+end_src\n** Sub\nold words\n#+RESULTS:\n" "New."))))
    (rlm-test-in-org rlm-test-block
      (let ((first (rlm-test-execute)))
        (should (string-search "old words" first))
        (should-not (string-match-p "^\\*+ \\(?:Heading\\|Sub\\)" first))
        ;; `:fresh': the same question of the same text is in the cache.
        (goto-char (point-min))
        (search-forward "#+begin_src rlm")
        (insert " :fresh yes")
        (let ((second (rlm-test-execute)))
          (should-not (string-search "old words" second))
          (should (string-suffix-p "#+RESULTS:\n:results:\nNew.\n:end:\n" second)))))))

(ert-deftest rlm-babel-cache-and-failure ()
  "A failed run is told and not believed; a good one is, until its text changes."
  (rlm-test-with-daemon
      (:scripts '(("root" . ((:text "broken" :status 400) "Good." "Better."))))
    (rlm-test-in-org (string-replace "src rlm" "src rlm :cache yes" rlm-test-block)
      (let ((text (rlm-test-execute)))
        (should (string-match-p "^Failed: .*broken" text))
        (should-not (string-match-p "RESULTS\\[" text)))
      (let ((text (rlm-test-execute)))
        (should (string-match-p "RESULTS\\[[0-9a-f]+\\]:\n:results:\nGood\\.\n" text))
        (should-not (string-search "Failed" text))
        (should (equal text (rlm-test-execute))))
      (save-excursion
        (goto-char (point-min))
        (forward-line 1)
        (insert "and more\n"))
      (should (string-search "Better." (rlm-test-execute))))))

(ert-deftest rlm-babel-a-run-that-dies-is-not-believed ()
  "While a block with `:cache yes' runs its placeholder is no result to believe."
  (rlm-test-with-daemon (:scripts '(("root" . ((:text "late" :latency 100)))))
    (rlm-test-in-org (string-replace "src rlm" "src rlm :cache yes" rlm-test-block)
      (org-babel-execute-src-block)
      (rlm-test-await (string-match-p "RESULTS:\n\\(?::results:\n\\)?\\[rlm [0-9a-f]+ running" (buffer-string)))
      (rlm-cancel (car (rlm--live-runs)))
      (should (string-match-p "^Failed: asked in Emacs" (rlm-test-settle))))))

(ert-deftest rlm-babel-references-and-exports-wait ()
  "Another block's variable, and an export, get the answer itself."
  (rlm-test-with-daemon (:scripts '(("root" . ("forty-two" "once more"))))
    (rlm-test-in-org "#+begin_src emacs-lisp :var x=asked\n(concat \"got \" x)\n#+end_src\n\n#+name: asked\n#+begin_src rlm :results verbatim\nWhat?\n#+end_src\nWords to ask of.\n"
      (org-babel-execute-src-block)
      (should (string-match-p "^: got forty-two$" (buffer-string)))
      (should-not (string-search "running" (buffer-string))))
    (rlm-test-in-org "Text.\n#+begin_src rlm :results verbatim :eval yes :exports results\nWhat else?\n#+end_src\n"
      (require 'ox-ascii)
      (should (string-search "once more" (org-export-as 'ascii))))))

(ert-deftest rlm-babel-exports-take-what-is-there ()
  "By default an export asks nothing; it takes the result that stands there."
  (rlm-test-with-home
    (rlm-test-in-org (concat rlm-test-block "\n#+RESULTS:\n:results:\nStands there.\n:end:\n")
      (require 'ox-ascii)
      (should (string-search "Stands there." (org-export-as 'ascii))))))

(ert-deftest rlm-babel-variables-are-python ()
  "A table is a list of lists in the session, and no text of it is in the prompt."
  (rlm-test-with-daemon
      (:scripts '(("root" . ("```repl\nr = f'{t[1][1]} {len(t)} {s}'\n```\nFINAL_VAR(r)"))))
    (rlm-test-in-org "#+name: tab\n| a | 1 |\n| b | 22 |\n\n#+begin_src rlm :var t=tab s=\"it's \\\\ ż\"\nHow many?\n#+end_src\nText.\n"
      (should (string-search "22 2 it's \\ ż" (rlm-test-execute)))
      (let ((run (car (hash-table-values rlm--runs))))
        (should (equal "How many?" (rlm-run-question run)))))))

(ert-deftest rlm-babel-wrapped-results-wait ()
  "A result that is wrapped is waited for: a placeholder would stay behind, and the next result stand inside the last."
  (rlm-test-with-daemon (:scripts '(("root" . ("First." "Second."))))
    (rlm-test-in-org (string-replace "src rlm" "src rlm :wrap note :fresh yes" rlm-test-block)
      (org-babel-execute-src-block)
      (should-not rlm--babel-running)
      (org-babel-execute-src-block)
      (should (string-suffix-p "#+RESULTS:\n#+begin_note\nSecond.\n#+end_note\n" (buffer-string)))
      (should-not (string-match-p "First\\|running" (buffer-string))))))

(ert-deftest rlm-babel-two-blocks-at-once ()
  "Two blocks of one document run side by side; each answer grows, and ends, below its own."
  (rlm-test-with-daemon
      (:scripts `(("root" . ((:text ,(concat "1: " (plist-get rlm-test-slowly :text)) :chunk 12 :pause 0.02)
                             (:text ,(concat "2: " (plist-get rlm-test-slowly :text)) :chunk 12 :pause 0.02)))))
    (rlm-test-in-org "#+begin_src rlm :context buffer:words\nOne?\n#+end_src\n\n#+begin_src rlm :context buffer:words\nTwo?\n#+end_src\n"
      (with-current-buffer (get-buffer-create "words") (insert "some words"))
      (org-babel-execute-src-block)
      (rlm-test-await (string-search "1: Slowly" (buffer-string)))
      (search-forward "#+begin_src")
      (org-babel-execute-src-block)
      (rlm-test-await (string-match-p "running.*\n1: Slowly \\(?:.*\n\\)*.*running.*\n2: Slowly" (buffer-string)))
      (should (string-match-p
               "\\`#\\+begin_src.*\nOne\\?\n#\\+end_src\n\n#\\+RESULTS:\n:results:\n1: Slowly.*that is all\\.\n:end:\n\n#\\+begin_src.*\nTwo\\?\n#\\+end_src\n\n#\\+RESULTS:\n:results:\n2: Slowly.*that is all\\.\n:end:\n\\'"
               (rlm-test-settle))))))

(ert-deftest rlm-babel-tables ()
  "With `:results table' the answer is asked for as a table, and is one."
  (rlm-test-with-daemon
      (:scripts '(("root" . ("{\"columns\": [\"Name\", \"Size\"], \"rows\": [[\"a|b\", 3], [\"c\", null]]}"))))
    (rlm-test-in-org (string-replace "src rlm" "src rlm :results table" rlm-test-block)
      (should (string-match-p "^| Name +| Size |\n|-+\\+-+|\n| a\\\\vert{}b | +3 |\n| c +| +|\n" (rlm-test-execute))))))

(ert-deftest rlm-babel-cells-share-a-session ()
  "Blocks of rlm-python run in one session, over a context, with variables; errors are told."
  (rlm-test-with-daemon nil
    (let ((file (rlm-test-file "data.txt" "seven!!")))
      (rlm-test-in-org (format "#+begin_src rlm-python :context file:%s :var y=2\nx = len(context) * y\nprint('set', x)\n#+end_src\n\n#+begin_src rlm-python\nprint(x + 1)\n#+end_src\n\n#+begin_src rlm-python\nx / 0\n#+end_src\n" file)
        (should (string-match-p "^: set 14$" (rlm-test-execute)))
        (search-forward "#+begin_src")
        (should (string-match-p "^: 15$" (rlm-test-execute)))
        (search-forward "#+begin_src")
        (should (string-search "ZeroDivisionError" (rlm-test-execute)))))))

(ert-deftest rlm-babel-what-a-block-asks-of ()
  "Each form of `:context' is understood, and one that is not there is said."
  (rlm-test-with-home
    (rlm-test-in-org (concat rlm-test-block "#+RESULTS:\n:results:\nold answer\n:end:\nafter\n* Other\n")
      (let ((of (lambda (context)
                  (rlm--babel-context (list (cons :context context))))))
        (should (equal "* Notes\nthe quick brown NEEDLE lies\n\nafter"
                       (string-trim (rlm-source-text (car (funcall of nil))))))
        (should (eq (current-buffer) (rlm-source-buffer (car (funcall of "buffer")))))
        (should-error (funcall of "buffer:no such") :type 'user-error)
        (should-error (funcall of "file:no-such") :type 'user-error)
        (should (rlm-source-paths (car (funcall of "/etc/passwd"))))
        (should (rlm-source-stored (car (funcall of "kept"))))))))

(ert-deftest rlm-babel-results-in-a-file ()
  "With `:file' the answer is written there, and the result is a link."
  (rlm-test-with-daemon (:scripts '(("root" . ("Into the file."))))
    (let ((file (expand-file-name "out.md" rlm-test-folder)))
      (rlm-test-in-org (string-replace "src rlm" (format "src rlm :results file verbatim :file %s" file) rlm-test-block)
        (should (string-match-p "^\\[\\[file:.*out\\.md\\]\\]$" (rlm-test-execute)))
        (should (equal "Into the file." (with-temp-buffer (insert-file-contents file) (buffer-string))))))))

(provide 'ob-rlm-test)
;;; ob-rlm-test.el ends here
