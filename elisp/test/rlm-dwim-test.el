;;; rlm-dwim-test.el --- What is asked about -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; What a question is taken to be about, in each kind of buffer, and
;; that it comes to the daemon and back to its place.

;;; Code:

(require 'rlm-test)
(require 'dired)
(require 'ibuffer)
(require 'ibuf-ext)
(require 'info)
(require 'doc-view)
(require 'project)

(defun rlm-test-labels ()
  "Return the labels of what is at point."
  (mapcar #'rlm-source-label (rlm--dwim-source nil)))

(defun rlm-test-answered (question)
  "Ask QUESTION of what is at point; return the run when it is over."
  (rlm-wait (rlm-query question (rlm--dwim-source nil)) rlm-test-patience))

(defun rlm-test-visit-first (run)
  "Go to the first citation of RUN; return what is told, in its buffer."
  (let ((told (rlm--citation-visit run (car (rlm-run-citations run)))))
    (set-buffer (window-buffer))
    told))

(ert-deftest rlm-dwim-region-subtree-buffer ()
  "The region comes first, then the subtree at whose heading point is, then the buffer."
  (with-temp-buffer
    (insert "* One\nalpha\n** Sub\nbeta\n* Two\ngamma\n")
    (org-mode)
    (goto-char (point-min))
    (let ((source (car (rlm--dwim-source nil))))
      (should (equal "* One\nalpha\n** Sub\nbeta\n" (rlm--source-string source))))
    (forward-line 1)
    (should (= (buffer-size) (rlm-source-chars (car (rlm--dwim-source nil)))))
    (transient-mark-mode 1)
    (goto-char (point-min))
    (push-mark (+ 5 (point)) t t)
    (should (equal "* One" (rlm--source-string (car (rlm--dwim-source nil)))))))

(ert-deftest rlm-dwim-own-functions-come-first ()
  "A function of the user may return a string, a stretch, or several."
  (with-temp-buffer
    (insert "some text")
    (let ((rlm-context-functions (list (lambda () "a string"))))
      (should (equal '("a string") (mapcar #'rlm--source-string (rlm--dwim-source nil)))))
    (let ((rlm-context-functions (list #'ignore (lambda () (list (current-buffer) 1 5)))))
      (should (equal '("some") (mapcar #'rlm--source-string (rlm--dwim-source nil)))))
    (let ((rlm-context-functions (list (lambda () (list "one" (list (current-buffer) 6 10))))))
      (should (equal '("one" "text") (mapcar #'rlm--source-string (rlm--dwim-source nil)))))))

(ert-deftest rlm-dwim-marked-files ()
  "Marked files go by path; edited, compressed ones are read here; private ones stay so."
  (rlm-test-with-home
    (let* ((one (rlm-test-file "one.txt" "one\n"))
           (two (rlm-test-file "two.txt" "two\n"))
           (edited (rlm-test-file "three.txt" "three\n")))
      (with-current-buffer (find-file-noselect edited)
        (goto-char (point-max))
        (insert "more\n"))
      (with-current-buffer (dired-noselect rlm-test-folder)
        (dired-mark-files-regexp "\\.txt\\'")
        (let ((sources (rlm--dwim-source nil)))
          (should (equal (list one two) (rlm-source-paths (car sources))))
          (should (equal '("three\nmore\n") (mapcar #'rlm--source-string (cdr sources)))))
        (dired-unmark-all-marks)
        (dired-goto-file two)
        (should (equal '("two.txt") (rlm-test-labels)))
        (goto-char (point-min))
        (should (equal (list (file-truename (directory-file-name rlm-test-folder)))
                       (mapcar #'directory-file-name
                               (rlm-source-paths (car (rlm--dwim-source nil)))))))
      (rlm-test-file ".dir-locals.el" "((nil . ((rlm-private . t))))")
      (should (rlm-source-private (car (rlm--sources-of-files (list one)))))
      (with-current-buffer (find-buffer-visiting edited) (set-buffer-modified-p nil)))))

(ert-deftest rlm-dwim-marked-buffers ()
  "In Ibuffer the marked buffers are meant, else the one at point."
  (rlm-test-with-home
    (with-current-buffer (get-buffer-create "first") (insert "1"))
    (with-current-buffer (get-buffer-create "second") (insert "2"))
    (save-window-excursion
      (ibuffer)
      (ibuffer-mark-by-name-regexp "\\`\\(?:first\\|second\\)\\'")
      (should (equal '("first" "second") (sort (rlm-test-labels) #'string<)))
      (kill-buffer))))

(ert-deftest rlm-dwim-strings-in-private-buffers ()
  "A string that is asked about in a private buffer is private too."
  (with-temp-buffer
    (should-not (rlm-source-private (rlm-source-from "text")))
    (setq-local rlm-private t)
    (should (rlm-source-private (rlm-source-from "text")))
    (should-error (rlm-source-from "") :type 'user-error)))

(ert-deftest rlm-dwim-project ()
  "All files of a project are asked about, without those that git ignores; the place is found."
  (rlm-test-with-daemon (:scripts '(("root" . ("> NEEDLE in a file\n\nThere."))))
    (let ((default-directory (file-name-as-directory
                              (expand-file-name "work" rlm-test-folder)))
          (project-list-file (expand-file-name "projects" rlm-test-folder)))
      (make-directory default-directory)
      (call-process "git" nil nil nil "init" "-q")
      (rlm-test-file "work/.gitignore" "*.log\n")
      (rlm-test-file "work/a.txt" "line\nthe NEEDLE in a file\n")
      (rlm-test-file "work/b.log" "NEEDLE in a log\n")
      (let (run)
        (cl-letf (((symbol-function 'rlm--read-question)
                   (lambda (sources)
                     (should (equal '("project work") (mapcar #'rlm-source-label sources)))
                     "Where?")))
          (save-window-excursion
            (setq run (rlm-query-project))
            (rlm-wait run rlm-test-patience)
            (let ((citation (car (rlm-run-citations run))))
              (should (rlm--citation-verified-p citation))
              (should (equal "a.txt:2" (rlm--citation-label run citation)))
              (rlm-test-visit-first run)
              (should (equal "a.txt" (buffer-name)))
              (should (looking-at-p "NEEDLE in a file"))))))
      (should (= 2 (plist-get (elt (plist-get (rlm-call-sync "context/list" nil) :contexts) 0)
                              :documents))))))

(ert-deftest rlm-dwim-a-manual ()
  "In Info the whole manual is asked about, and a citation leads to its node."
  (rlm-test-with-daemon (:scripts '(("root" . ("> the second node says NEEDLE\n\nThere."))))
    (let ((file (rlm-test-file
                 "little.info"
                 (concat "This is little.info.\n\n\^_\nFile: little.info,  Node: Top,  Next: Second,  Up: (dir)\n\nTop\n***\n\n* Menu:\n\n* Second::\n"
                         "\^_\nFile: little.info,  Node: Second,  Prev: Top,  Up: Top\n\n1 Second\n********\n\nHere the second node says NEEDLE.\n"
                         "\^_\nTag Table:\nNode: Top\^?22\nNode: Second\^?120\n\^_\nEnd Tag Table\n"))))
      (save-window-excursion
        (info file)
        (should (equal '("little manual") (rlm-test-labels)))
        (let ((run (rlm-test-answered "Where?")))
          (should (equal "(little)Second"
                         (rlm--citation-label run (car (rlm-run-citations run)))))
          (rlm-test-visit-first run)
          (should (derived-mode-p 'Info-mode))
          (should (equal "Second" Info-current-node))
          (should (looking-at-p "the second node says NEEDLE")))))))

(defconst rlm-test-pdf
  "%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R 5 0 R]/Count 2>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F 7 0 R>>>>>>endobj
4 0 obj<</Length 44>>stream
BT /F 12 Tf 20 200 Td (nothing is here) Tj ET
endstream endobj
5 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 6 0 R/Resources<</Font<</F 7 0 R>>>>>>endobj
6 0 obj<</Length 50>>stream
BT /F 12 Tf 20 200 Td (the NEEDLE is on page two) Tj ET
endstream endobj
7 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R>>
"
  "A PDF of two pages.")

(ert-deftest rlm-dwim-a-pdf ()
  "A PDF is asked about by its text; a citation knows its page; it is converted once."
  (rlm-test-with-daemon (:scripts '(("root" . ("> the NEEDLE is on page two\n\nThere." "Again."))))
    (let ((file (rlm-test-file "two.pdf" rlm-test-pdf)))
      (save-window-excursion
        (with-current-buffer (find-file-noselect file t t)
          (setq major-mode 'doc-view-mode)
          (let ((run (rlm-test-answered "Where?")))
            (should (equal "two.pdf p. 2"
                           (rlm--citation-label run (car (rlm-run-citations run)))))
            (should (string-match-p "two.pdf p. 2: “the NEEDLE"
                                    (rlm-test-visit-first run)))
            (with-current-buffer "two.pdf"
              (should (rlm-source-name (car (rlm--dwim-source nil)))))))))))

(ert-deftest rlm-dwim-a-pdf-without-text ()
  "Of a PDF that holds no text one is told so, and what to do."
  (rlm-test-with-daemon nil
    (let ((file (rlm-test-file "none.pdf" "no pdf at all")))
      (with-current-buffer (find-file-noselect file t t)
        (setq major-mode 'doc-view-mode)
        (let ((run (rlm-test-answered "Where?")))
          (should (string-match-p "none.pdf holds no text.*character recognition"
                                  (rlm-error-text (rlm-run-error run)))))))))

(ert-deftest rlm-dwim-compose ()
  "A long question is written in a buffer, which stays if it cannot be asked."
  (rlm-test-with-daemon (:scripts '(("root" . ("Forty-two."))))
    (save-window-excursion
      (rlm-test-with-notes "text\n"
        (rlm-compose (rlm--dwim-source nil) "First line\n")
        (insert "second line")
        (should (string-match-p "Ask of notes.txt (5 characters): C-c C-c asks" (rlm--compose-header)))
        (let ((compose (current-buffer)))
          (call-interactively (key-binding (kbd "C-c C-c")))
          (should-not (buffer-live-p compose)))
        (let ((run (car (hash-table-values rlm--runs))))
          (should (equal "First line\nsecond line" (rlm-run-question run)))
          (rlm-wait run rlm-test-patience)
          (should (equal "Forty-two." (rlm-run-answer run))))
        (rlm-compose (rlm--dwim-source nil))
        (let ((compose (current-buffer)))
          (should-error (call-interactively (key-binding (kbd "C-c C-c"))) :type 'user-error)
          (should (buffer-live-p compose))
          (insert "kept")
          (call-interactively (key-binding (kbd "C-c C-k")))
          (should (equal "kept" (current-kill 0))))))))

(ert-deftest rlm-dwim-keep-a-context ()
  "What is at point is kept under a name, brought up to date, and asked about by it."
  (rlm-test-with-daemon (:scripts '(("root" . ("> quick brown NEEDLE lies\n\nA."))))
    (rlm-test-with-notes "text\n"
      (let ((chars (lambda ()
                     (mapcar (lambda (context) (cons (plist-get context :name) (plist-get context :chars)))
                             (plist-get (rlm-call-sync "context/list" nil) :contexts)))))
        (rlm-keep-context "my notes")
        (rlm-test-await (equal '(("my notes" . 5)) (funcall chars)))
        (goto-char (point-max))
        (insert "quick brown NEEDLE lies\n")
        (rlm-keep-context "my notes")
        (rlm-test-await (equal '(("my notes" . 29)) (funcall chars)))
        (let ((run (rlm-wait (rlm-query "Q?" (rlm--source-from-context "my notes"))
                             rlm-test-patience)))
          (should (rlm--citation-verified-p (car (rlm-run-citations run)))))
        (should-error (rlm-keep-context " ") :type 'user-error)))))

;;;; What a prefix argument wants

(ert-deftest rlm-dwim-prefix-arguments ()
  "None asks of what is at point, \\`C-u' opens the menu, two ask of the last text, a minus is for the echo area."
  (rlm-test-with-notes "here\n"
    (let* ((rlm--last-sources (list (rlm-source-from "elsewhere")))
           (asked nil)
           (opened 0)
           (here (lambda (sources) (eq (current-buffer) (rlm-source-buffer (car sources))))))
      (cl-letf (((symbol-function 'rlm--query)
                 (lambda (_question sources _callback display &rest _)
                   (setq asked (list (if (funcall here sources) 'here 'last) display))))
                ((symbol-function 'rlm-dispatch) (lambda () (interactive) (cl-incf opened)))
                ((symbol-function 'read-from-minibuffer) (lambda (&rest _) "Q?")))
        (pcase-dolist (`(,prefix ,expected ,menus) '((nil (here t) 0) ((16) (last t) 0) ((64) (last t) 0)
                                                     (- (here echo) 0) (-1 (here echo) 0) (2 (last t) 0)
                                                     ((4) nil 1)))
          (setq asked nil
                opened 0)
          (let ((current-prefix-arg prefix))
            (call-interactively #'rlm-query))
          (should (equal (list prefix expected menus) (list prefix asked opened))))))))

(provide 'rlm-dwim-test)
;;; rlm-dwim-test.el ends here
