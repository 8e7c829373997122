;;; rlm-magit-test.el --- With Magit -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A real repository and Debian's Magit: the message, the review, the
;; reason, the suffixes.

;;; Code:

(require 'rlm-test)

(dolist (folder (file-expand-wildcards "/usr/share/emacs/site-lisp/elpa/*-[0-9]*"))
  (add-to-list 'load-path folder))
(require 'magit)
(require 'rlm-magit)

(defun rlm-test-git (&rest arguments)
  "Run git with ARGUMENTS in `default-directory'; fail loudly."
  (with-temp-buffer
    (unless (eq 0 (apply #'call-process "git" nil t nil
                         "-c" "user.name=A" "-c" "user.email=a@b" arguments))
      (ert-fail (list arguments (buffer-string))))))

(defmacro rlm-test-in-repository (&rest body)
  "Run BODY in a repository with two commits, a change that is staged, and one that is not."
  (declare (indent 0) (debug t))
  `(let ((default-directory (file-name-as-directory
                             (expand-file-name "repo" rlm-test-folder))))
     (make-directory default-directory)
     (rlm-test-git "init" "-q" "-b" "main")
     (rlm-test-file "repo/a.txt" "one\ntwo\n")
     (rlm-test-file "repo/yarn.lock" "old\n")
     (rlm-test-git "add" ".")
     (rlm-test-git "commit" "-q" "-m" "feat: begin")
     (rlm-test-file "repo/a.txt" "one\nthe quick brown NEEDLE\n")
     (rlm-test-git "commit" "-qam" "fix: the second line says more")
     (rlm-test-file "repo/a.txt" "one\nthe quick brown NEEDLE\nthree is new here\n")
     (rlm-test-file "repo/yarn.lock" (mapconcat #'number-to-string (number-sequence 1 500) "\n"))
     (rlm-test-git "add" ".")
     (rlm-test-file "repo/a.txt" "one\nthe quick brown NEEDLE\nthree is new here\nfour is not staged\n")
     (save-window-excursion ,@body)))

(defconst rlm-test-message
  "{\"subject\": \"feat: a third line\", \"body\": \"It was missing.\"}"
  "What a model answers that is asked for a message.")

(ert-deftest rlm-magit-a-message-for-what-is-staged ()
  "The message comes into the buffer; lock files are folded, earlier messages show the manner."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-message))))
    (rlm-test-in-repository
      (let ((text (rlm-source-text (rlm--magit-staged))))
        (should (string-search "fix: the second line says more" text))
        (should (string-search "+three is new here" text))
        (should-not (string-search "four is not staged" text))
        (should (string-match-p "yarn\\.lock b/yarn\\.lock\n(50[0-9] lines, left out)" text))
        (should-not (string-search "+499" text)))
      (with-temp-buffer
        (insert "\n# Please enter the commit message\n")
        (rlm-wait (rlm-magit-message) rlm-test-patience)
        (should (equal "feat: a third line\n\nIt was missing.\n\n# Please enter the commit message\n"
                       (buffer-string)))))))

(ert-deftest rlm-magit-what-was-written-stays ()
  "Who has written a message meanwhile keeps it; the other is in the kill ring."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-message))))
    (rlm-test-in-repository
      (with-temp-buffer
        (insert "mine\n# comment\n")
        (rlm-wait (rlm-magit-message) rlm-test-patience)
        (should (equal "mine\n# comment\n" (buffer-string)))
        (should (string-prefix-p "feat: a third line\n" (current-kill 0)))))))

(ert-deftest rlm-magit-commit-writes-meanwhile ()
  "The commit's buffer opens at once, and the message arrives in it."
  (rlm-test-with-daemon (:scripts `(("root" . (,rlm-test-message))))
    (rlm-test-in-repository
      (cl-letf (((symbol-function 'magit-commit-create)
                 (lambda (&optional _)
                   (with-current-buffer (get-buffer-create "COMMIT_EDITMSG")
                     (insert "\n# comment\n")
                     (run-hooks 'git-commit-setup-hook)))))
        (rlm-magit-commit))
      (rlm-test-await (string-prefix-p "feat: a third line" (rlm-test-answer-text "COMMIT_EDITMSG"))))))

(ert-deftest rlm-magit-nothing-staged ()
  "Without staged changes nothing is asked."
  (rlm-test-with-home
    (rlm-test-in-repository
      (rlm-test-git "reset" "-q" "--hard")
      (should (equal '(user-error "Nothing is staged") (should-error (rlm-magit-message))))
      (should (equal '(user-error "There are no changes") (should-error (rlm-magit-review)))))))

(ert-deftest rlm-magit-a-review-cites-the-diff ()
  "What is staged, and a range, are reviewed; a citation leads into the diff."
  (rlm-test-with-daemon (:scripts '(("root" . ("> three is new here\n\nWhy three?" "Fine."))))
    (rlm-test-in-repository
      (let ((run (rlm-wait (rlm-magit-review) rlm-test-patience)))
        (should-not (string-search "not staged" (rlm--source-string (car (rlm-run-sources run)))))
        (rlm--citation-visit run (car (rlm-run-citations run)))
        (with-current-buffer (window-buffer)
          (should (derived-mode-p 'diff-mode))
          (should (looking-at-p "three is new here"))))
      (let ((run (rlm-wait (rlm-magit-review "HEAD~1..HEAD") rlm-test-patience)))
        (should (string-search "+the quick brown NEEDLE"
                               (rlm--source-string (car (rlm-run-sources run)))))))))

(ert-deftest rlm-magit-the-section-at-point ()
  "In a status buffer the question is of the section that point is in."
  (rlm-test-with-home
    (rlm-test-in-repository
      (magit-status-setup-buffer default-directory)
      (goto-char (point-min))
      (re-search-forward "^Staged changes")
      (let ((text (rlm--source-string (car (rlm--dwim-source nil)))))
        (should (string-search "+three is new here" text))
        (should-not (string-search "four is not staged" text)))
      (search-forward "a.txt")
      (let ((text (rlm--source-string (car (rlm--dwim-source nil)))))
        (should (string-search "+three is new here" text))
        (should-not (string-search "yarn" text))
        (should-not (string-search "four is not staged" text)))
      (goto-char (point-min))
      (re-search-forward "^Unstaged changes")
      (let ((text (rlm--source-string (car (rlm--dwim-source nil)))))
        (should (string-search "+four is not staged" text))
        (should-not (string-search "+three is new here" text)))
      (search-forward "Recent commits")
      (search-forward "fix: the second")
      (should (string-search "+the quick brown NEEDLE"
                             (rlm--source-string (car (rlm--dwim-source nil)))))
      (kill-buffer))))

(ert-deftest rlm-magit-why-is-this-so ()
  "The history of the lines at point is asked about."
  (rlm-test-with-daemon (:scripts '(("root" . ("Because."))))
    (rlm-test-in-repository
      (rlm-test-git "commit" "-qm" "feat: three")
      (with-current-buffer (find-file-noselect "a.txt")
        (goto-char (point-min))
        (forward-line 1)
        (let ((run (rlm-wait (rlm-magit-why (point) (line-end-position) "Why?") rlm-test-patience)))
          (should (equal "Why? (lines 2,2 of a.txt)" (rlm-run-question run)))
          (let ((text (rlm--source-string (car (rlm-run-sources run)))))
            (should (string-search "fix: the second line" text))
            (should (string-search "+the quick brown NEEDLE" text))))))))

(ert-deftest rlm-magit-suffixes-come-and-go ()
  "The mode adds its suffixes once and takes them away."
  (let ((there (lambda ()
                 (mapcar (lambda (entry)
                           (ignore-errors (and (transient-get-suffix (car entry) (car (nth 2 entry))) t)))
                         rlm--magit-suffixes))))
    (should (equal '(nil nil) (funcall there)))
    (unwind-protect
        (progn
          (rlm-magit-mode 1)
          (rlm-magit-mode 1)
          (should (equal '(t t) (funcall there))))
      (rlm-magit-mode -1))
    (should (equal '(nil nil) (funcall there)))))

(provide 'rlm-magit-test)
;;; rlm-magit-test.el ends here
