;;; rlm-magit.el --- Commit messages, reviews, reasons -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; With Magit: a commit message for what is staged, in the manner of
;; those before it; a review of changes, whose citations lead into the
;; diff; why a stretch of a file is as it is, from its history.  Magit
;; is needed only here.  Diffs are made by Emacs, so that repositories
;; on other machines work too.

;;; Code:

(require 'rlm-ask)
(require 'transient)

(declare-function magit-git-insert "ext:magit-git" (&rest args))
(declare-function magit-toplevel "ext:magit-git" (&optional directory))
(declare-function magit-current-section "ext:magit-section" ())
(declare-function magit-section-value-if "ext:magit-section" (condition &optional section))
(declare-function magit-section-match "ext:magit-section" (condition &optional section))
(declare-function magit-diff-type "ext:magit-diff" (&optional section))
(declare-function magit-commit-create "ext:magit-commit" (&optional args))
(declare-function magit-commit-arguments "ext:magit-commit" ())
(declare-function magit-read-range "ext:magit-git" (prompt &optional default))

(defvar git-commit-setup-hook)

(defcustom rlm-magit-folded-files
  "\\(?:\\`\\|/\\)\\(?:package-lock\\.json\\|yarn\\.lock\\|pnpm-lock\\.yaml\\|[Pp]oetry\\.lock\\|uv\\.lock\\|Cargo\\.lock\\|Gemfile\\.lock\\|composer\\.lock\\|go\\.sum\\|flake\\.lock\\)\\'\\|\\.min\\.\\(?:js\\|css\\)\\'"
  "Regexp of files whose changes a commit message is not made of.
Only how many lines they have is told."
  :type 'regexp
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-magit-models nil
  "The models that write commit messages, as \"host/model\".
Nil means those of `rlm-root-models'."
  :type '(repeat string)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-magit-profile "fast"
  "The profile that commit messages are written with; see `rlm-profiles'."
  :type '(choice (const :tag "As other questions" nil) string)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defconst rlm--magit-messages 12
  "How many earlier commit messages show the manner.")

;;;; What git says

(defun rlm--magit-text (&rest arguments)
  "Return what git says when it is given ARGUMENTS."
  (unless (require 'magit nil t)
    (user-error "This needs Magit"))
  (let ((directory (or (magit-toplevel) (user-error "This is no git repository"))))
    (with-temp-buffer
      (setq default-directory directory)
      (apply #'magit-git-insert arguments)
      (buffer-string))))

(defun rlm--magit-buffer (name &rest arguments)
  "Return a buffer NAME with the diff that git makes of ARGUMENTS."
  (let ((private (rlm--private-p))
        (directory (magit-toplevel))
        (text (apply #'rlm--magit-text arguments)))
    (when (string-blank-p text)
      (user-error "There are no changes"))
    (with-current-buffer (get-buffer-create name)
      (setq default-directory directory)
      (let ((inhibit-read-only t))
        (unless (equal text (buffer-string))
          (erase-buffer)
          (insert text)))
      (diff-mode)
      (setq buffer-read-only t)
      (setq-local rlm-private private)
      (set-buffer-modified-p nil)
      (current-buffer))))

(defun rlm--magit-slot (section slot)
  "Return SLOT of SECTION, whose class is not known before Magit is there."
  (slot-value section slot))

(defun rlm-magit-context ()
  "Return what the Magit section at point is about, or nil."
  (let ((file (magit-section-value-if 'file))
        (commit (magit-section-value-if 'commit)))
    (cond
     (commit (rlm--magit-buffer (format "*rlm commit %s*" commit)
                                "show" "--stat" "-p" commit))
     ((magit-section-match 'hunk)
      (let ((section (magit-current-section)))
        (list (current-buffer)
              (marker-position (rlm--magit-slot section 'start))
              (marker-position (rlm--magit-slot section 'end)))))
     ((magit-section-match '(staged unstaged file))
      (let ((staged (eq 'staged (magit-diff-type))))
        (apply #'rlm--magit-buffer
               (format "*rlm %s changes%s*" (if staged "staged" "unstaged")
                       (if file (concat " of " file) ""))
               (append '("diff") (when staged '("--cached"))
                       (when file (list "--" file)))))))))

;;;; Commit messages

(defun rlm--magit-fold (diff)
  "Return DIFF without the hunks of files that nobody reads."
  (let ((parts (split-string diff "^\\(?:diff --git \\)" t)))
    (mapconcat
     (lambda (part)
       (if (and (string-match "\\`a/\\(.*?\\) b/" part)
                (string-match-p rlm-magit-folded-files (match-string 1 part)))
           (format "diff --git %s\n(%s, left out)\n"
                   (car (split-string part "\n"))
                   (rlm--count (1- (length (split-string part "\n"))) "line"))
         (concat "diff --git " part)))
     parts "")))

(defun rlm--magit-staged ()
  "Return the source of a commit message: what is staged, and earlier messages."
  (let ((diff (rlm--magit-text "diff" "--cached")))
    (when (string-blank-p diff)
      (user-error "Nothing is staged"))
    (rlm--source-from-string
     (concat "Earlier commit messages of this repository, newest first:\n\n"
             (rlm--magit-text "log" (format "-%d" rlm--magit-messages)
                              "--format=%B----")
             "\n\nThe changes that are to be committed:\n\n"
             (rlm--magit-fold diff))
     "what is staged")))

(defconst rlm--magit-question
  "Write the commit message for the changes that are to be committed. \
Follow the manner of the earlier messages: tense, prefixes, capital letters, length of the subject, whether there is a body. \
Say why rather than what where the changes show it. Mention nothing that the changes do not show."
  "What is asked for a commit message.")

(defconst rlm--magit-schema
  '(:type "object" :required ["subject" "body"] :additionalProperties :json-false
    :properties (:subject (:type "string") :body (:type "string")))
  "What a commit message is.")

(defun rlm--magit-message (answer)
  "Return the commit message in ANSWER, JSON of subject and body."
  (let* ((parsed (json-parse-string answer :object-type 'plist))
         (body (string-trim (or (plist-get parsed :body) ""))))
    (concat (rlm--one-line (plist-get parsed :subject) 200) "\n"
            (unless (string-empty-p body)
              (with-temp-buffer
                (insert "\n" body "\n")
                (let ((fill-column 72))
                  (text-mode)
                  (fill-region (point-min) (point-max)))
                (buffer-string))))))

;;;###autoload
(defun rlm-magit-message ()
  "Have a message written for what is staged, and inserted in this buffer.
It comes when it is ready; if you have written something by then it
goes to the kill ring instead."
  (interactive)
  (let* ((buffer (current-buffer))
         (source (rlm--magit-staged)))
    (message "A message is being written…")
    (rlm-query rlm--magit-question source
               :profile rlm-magit-profile :root rlm-magit-models :schema rlm--magit-schema
               :callback (lambda (run) (rlm--magit-written run buffer)))))

(defun rlm--magit-written (run buffer)
  "Put the message of RUN into BUFFER, if nobody has written one."
  (if (or (rlm-run-error run) (string-empty-p (or (rlm-run-answer run) "")))
      (message "rlm: no message: %s"
               (if (rlm-run-error run) (rlm-error-text (rlm-run-error run))
                 (rlm-run-why run)))
    (let ((text (rlm--magit-message (rlm-run-answer run))))
      (if (and (buffer-live-p buffer)
               (with-current-buffer buffer (rlm--magit-empty-p)))
          (with-current-buffer buffer
            (save-excursion
              (goto-char (point-min))
              (insert text))
            (message "The message is there"))
        (kill-new text)
        (message "The message is in the kill ring")))))

(defun rlm--magit-empty-p ()
  "Return non-nil if the current buffer holds only comments."
  (save-excursion
    (goto-char (point-min))
    (not (re-search-forward "^[^#\n]" (save-excursion
                                        (if (re-search-forward "^# -+ >8 -+" nil t)
                                            (match-beginning 0)
                                          (point-max)))
                            t))))

;;;###autoload
(defun rlm-magit-commit (&optional arguments)
  "Begin a commit with ARGUMENTS, and have its message written meanwhile."
  (interactive (progn (require 'magit) (list (magit-commit-arguments))))
  (rlm--magit-staged)
  (letrec ((hook (lambda ()
                   (remove-hook 'git-commit-setup-hook hook)
                   (rlm--guarded #'rlm-magit-message))))
    (add-hook 'git-commit-setup-hook hook)
    (magit-commit-create arguments)))

;;;; Reviews and reasons

(defconst rlm--magit-review
  "Review these changes. Name faults that matter (bugs, missing cases, broken callers, security, tests that are missing), \
the worst first, each with the changed lines quoted. Say so if you find none."
  "What is asked for a review.")

(defun rlm--magit-ask (question buffer)
  "Ask QUESTION of BUFFER, and show the answer."
  (rlm-query question buffer :display t))

;;;###autoload
(defun rlm-magit-review (&optional range)
  "Have changes reviewed: those at point, else what is staged.
With a prefix argument, those of RANGE, such as main..topic."
  (interactive (list (when current-prefix-arg
                       (require 'magit)
                       (magit-read-range "Review range"))))
  (unless (require 'magit nil t)
    (user-error "This needs Magit"))
  (rlm--magit-ask
   rlm--magit-review
   (cond (range (rlm--magit-buffer (format "*rlm %s*" range) "diff" range))
         ((and (derived-mode-p 'magit-mode) (rlm-magit-context)))
         (t (rlm--magit-buffer "*rlm staged changes*" "diff" "--cached")))))

;;;###autoload
(defun rlm-magit-why (start end question)
  "Ask QUESTION of the history of the lines from START to END.
Interactively they are the region, or the line at point, and the
question is why they are as they are."
  (interactive
   (list (if (use-region-p) (region-beginning) (line-beginning-position))
         (if (use-region-p) (region-end) (line-end-position))
         (read-string "Question: " "Why is this so?" 'rlm-query-history)))
  (let* ((file (or buffer-file-name (user-error "This buffer shows no file")))
         (first (rlm--line-number start))
         (last (max first (rlm--line-number (if (and (> end start) (eq ?\n (char-before end)))
                                                (1- end) end))))
         (lines (format "%d,%d" first last))
         (name (file-name-nondirectory file))
         (local (file-local-name file)))
    (rlm--magit-ask
     (format "%s (lines %s of %s)" question lines name)
     (rlm--magit-buffer (format "*rlm history of %s:%s*" name lines)
                        "log" (format "-L%s:%s" lines local)))))

;;;; In Magit's menus

(defconst rlm--magit-suffixes
  '((magit-commit magit-commit-create ("m" "Message by rlm" rlm-magit-commit))
    (magit-diff magit-stash-show ("m" "Review by rlm" rlm-magit-review)))
  "What `rlm-magit-mode' adds: menu, after which command, suffix.")

;;;###autoload
(define-minor-mode rlm-magit-mode
  "Have rlm write commit messages and review, from Magit's menus."
  :global t
  :group 'rlm
  :package-version '(rlm . "0.1.0")
  (unless (require 'magit nil t)
    (setq rlm-magit-mode nil)
    (user-error "This needs Magit"))
  (pcase-dolist (`(,menu ,after ,suffix) rlm--magit-suffixes)
    (ignore-errors (transient-remove-suffix menu (car suffix)))
    (when rlm-magit-mode
      (transient-append-suffix menu after suffix))))

(provide 'rlm-magit)
;;; rlm-magit.el ends here
