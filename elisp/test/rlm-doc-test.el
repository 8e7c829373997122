;;; rlm-doc-test.el --- The manual knows what there is -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Every command, option, face and key that a user meets is in the manual.

;;; Code:

(require 'rlm-test)

(dolist (file (directory-files (expand-file-name "elisp" rlm-test-root) nil "\\`[^.].*\\.el\\'"))
  (require (intern (file-name-base file))))

(defun rlm-test-manual ()
  "Return the source of the manual."
  (with-temp-buffer
    (insert-file-contents (expand-file-name "docs/rlm.texi" rlm-test-root))
    (buffer-string)))

(defun rlm-test-symbols (predicate)
  "Return the names of the public symbols of rlm that satisfy PREDICATE."
  (let (names)
    (mapatoms (lambda (symbol)
                (let ((name (symbol-name symbol)))
                  (when (and (string-match-p "\\`rlm-[^-]" name)
                             (not (string-match-p "\\`rlm-test" name))
                             (funcall predicate symbol))
                    (push name names)))))
    (sort names #'string<)))

(defun rlm-test-undocumented (names)
  "Return those of NAMES that the manual does not hold."
  (let ((manual (rlm-test-manual)))
    (seq-remove (lambda (name)
                  (string-match-p (concat "\\_<" (regexp-quote name) "\\_>") manual))
                names)))

(ert-deftest rlm-doc-options ()
  "Each option is described, and has a type, a group and the version it came with."
  (let ((options (seq-remove (lambda (name) (string-suffix-p "-mode-hook" name))
                             (rlm-test-symbols #'custom-variable-p))))
    (should (> (length options) 5))
    (should-not (rlm-test-undocumented options))
    (dolist (option options)
      (should (get (intern option) 'custom-type))
      (should (get (intern option) 'custom-package-version))
      (should (assq (intern option) (get 'rlm 'custom-group))))))

(ert-deftest rlm-doc-commands ()
  "Each command is described; the mode is named."
  (should-not (rlm-test-undocumented (rlm-test-symbols #'commandp))))

(ert-deftest rlm-doc-commands-of-a-mode-are-offered-there-alone ()
  "As `command-completion-default-include-p' sees it."
  (let ((offered (lambda (mode command)
                   (with-temp-buffer
                     (funcall mode)
                     (command-completion-default-include-p command (current-buffer))))))
    (pcase-dolist (`(,mode . ,commands) '((rlm-runs-mode rlm-runs-open rlm-runs-delete)
                                          (rlm-contexts-mode rlm-contexts-peek)
                                          (rlm-sessions-mode rlm-sessions-drop)
                                          (rlm-hosts-mode rlm-hosts-pause)
                                          (rlm-trace-mode rlm-trace-next rlm-trace-answer)))
      (dolist (command commands)
        (should (equal (list command t) (list command (and (funcall offered mode command) t))))
        (should (equal (list command nil) (list command (and (funcall offered #'text-mode command) t))))))
    (should (funcall offered #'text-mode 'rlm-query))
    (should-not (funcall offered #'text-mode 'rlm-menu-query))))

(ert-deftest rlm-doc-faces ()
  "Each face is described."
  (should-not (rlm-test-undocumented (rlm-test-symbols #'facep))))

(ert-deftest rlm-doc-functions ()
  "Each public function for programs is described, accessors by their run."
  (should-not (rlm-test-undocumented '("rlm-query" "rlm-wait" "rlm-call" "rlm-call-sync"
                                       "rlm-run-answer" "rlm-run-cancel" "rlm-error-text"))))

(ert-deftest rlm-doc-files-end-and-begin-well ()
  "Each file has its commentary, and the one version."
  (dolist (file (directory-files (expand-file-name "elisp" rlm-test-root) t "\\.el\\'"))
    (with-temp-buffer
      (insert-file-contents file)
      (should (search-forward ";;; Commentary:" nil t))
      (goto-char (point-min))
      (when (re-search-forward "^;; Version: \\(.*\\)" nil t)
        (should (equal (match-string 1) rlm-version)))))
  (should (string-match-p (regexp-quote (concat "rlm.el " rlm-version)) (rlm-test-manual))))

(provide 'rlm-doc-test)
;;; rlm-doc-test.el ends here
