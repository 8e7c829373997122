;;; rlm-context-test.el --- Texts on their way to the daemon -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; How a buffer's text travels, and that what the daemon has is what
;; the buffer shows, character for character.

;;; Code:

(require 'rlm-test)
(require 'rlm-context)

(defun rlm-test-kind (source)
  "Return by which way SOURCE would travel: path, inline or spool."
  (intern (plist-get (rlm-test-with-spool (rlm--source-wire source "/tmp/s")) :kind)))

(defmacro rlm-test-with-spool (&rest body)
  "Run BODY with the test's folder as spool folder."
  (declare (debug t))
  `(cl-letf (((symbol-function 'rlm--spool-folder) (lambda (_) rlm-test-folder)))
     ,@body))

(defmacro rlm-test-visiting (file &rest body)
  "Run BODY in a buffer that visits FILE."
  (declare (indent 1) (debug t))
  `(let ((enable-local-variables nil))
     (with-current-buffer (find-file-noselect ,file t) ,@body)))

(defun rlm-test-load (source)
  "Take SOURCE to the daemon; return the context's name."
  (let ((outcome nil))
    (rlm-call-sync "daemon/status" nil)
    (rlm--source-load source (rlm-socket-path)
                      (lambda (name) (setq outcome (list name)))
                      (lambda (error) (setq outcome error)))
    (rlm-test-await outcome)
    (when (keywordp (car outcome))
      (ert-fail outcome))
    (car outcome)))

(defun rlm-test-peek (name start chars)
  "Return what the daemon has of context NAME from START on, CHARS long."
  (plist-get (rlm-call-sync "context/peek" (list :name name :start start :chars chars))
             :text))

;;;; Which way

(ert-deftest rlm-context-a-plain-file-goes-by-path ()
  "An unmodified, whole, local utf-8-unix file is not copied at all."
  (rlm-test-with-home
    (let ((file (rlm-test-file "plain.txt" "żółw\nline\n")))
      (rlm-test-visiting file
        (let* ((source (rlm-source-from (current-buffer)))
               (wire (rlm--source-wire source "/tmp/s"))
               (identity (plist-get wire :identity)))
          (should (equal (plist-get wire :paths) (vector (file-truename file))))
          (should (equal (plist-get identity :size) "13"))
          (should (string-match-p "\\`[0-9]\\{19\\}\\'" (plist-get identity :mtime_ns))))))))

(ert-deftest rlm-context-what-is-not-the-file-does-not-go-by-path ()
  "Each of these buffers shows something else than its file's bytes as UTF-8."
  (rlm-test-with-home
    (pcase-dolist
        (`(,name ,text ,coding ,change)
         `(("modified" "a\nb\n" utf-8-unix ,(lambda () (delete-char 1) (insert "x")))
           ("narrowed" "a\nb\n" utf-8-unix ,(lambda () (narrow-to-region 2 4)))
           ("crlf" "a\nb\n" utf-8-dos ignore)
           ("cr" "a\nb\n" utf-8-mac ignore)
           ("bom" "a\nb\n" utf-8-with-signature-unix ignore)
           ("latin" "é\n" iso-8859-1-unix ignore)
           ("utf16" "a\n" utf-16le-unix ignore)
           ("touched" "a\nb\n" utf-8-unix
            ,(lambda () (set-file-times buffer-file-name 12345)))
           ("gone" "a\nb\n" utf-8-unix ,(lambda () (delete-file buffer-file-name)))))
      (rlm-test-visiting (rlm-test-file name text coding)
        (funcall change)
        (should-not (equal (list name (rlm-test-kind (rlm-source-from (current-buffer))))
                           (list name 'path)))))
    (with-temp-buffer
      (insert "no file")
      (should (eq 'inline (rlm-test-kind (rlm-source-from (current-buffer))))))))

(ert-deftest rlm-context-a-decompressed-file-does-not-go-by-path ()
  "The daemon would read the compressed bytes."
  (rlm-test-with-home
    (let ((file (rlm-test-file "x.gz" "text\n")))
      (delete-file file)
      (with-temp-buffer
        (insert (make-string 5000 ?x) "\n")
        (let ((coding-system-for-write 'utf-8-unix))
          (write-region nil nil file nil 'silent)))
      (should (< (file-attribute-size (file-attributes file)) 1000))
      (rlm-test-visiting file
        (should (= (buffer-size) 5001))
        (should (eq 'inline (rlm-test-kind (rlm-source-from (current-buffer)))))))))

(ert-deftest rlm-context-large-or-odd-text-is-spooled ()
  "Text above 256 KiB, raw bytes, surrogates and NUL never become JSON."
  (rlm-test-with-home
    (dolist (text (list (make-string 262145 ?x)
                        (make-string 90000 ?日)
                        (string ?a (unibyte-char-to-multibyte #xe9))
                        (string ?a #xd800)
                        (string ?a 0)
                        "caf\351"))
      (should (eq 'spool (rlm-test-kind (rlm-source-from text)))))
    (should (eq 'inline (rlm-test-kind (rlm-source-from (make-string 262144 ?x)))))
    (should (eq 'inline (rlm-test-kind (rlm-source-from "żółw 🐢"))))))

(ert-deftest rlm-context-a-spool-file-is-ours-alone ()
  "It holds the bytes, raw ones too, mode 0600, and no lock, format or backup beside it."
  (rlm-test-with-home
    (with-temp-buffer
      (insert "żółw\r\n" (unibyte-char-to-multibyte #xe9) "\n")
      (setq buffer-file-format '(text/enriched))
      (set-buffer-file-coding-system 'iso-8859-1-dos)
      (rlm-test-with-spool
       (let* ((write-region-annotate-functions (list (lambda (&rest _) '((1 . "JUNK")))))
              (wire (rlm--source-by-file (rlm-source-from (current-buffer)) "/tmp/s"))
              (file (expand-file-name (plist-get wire :file) rlm-test-folder)))
         (should (= #o600 (file-modes file)))
         (should (equal (plist-get wire :file) (file-name-nondirectory file)))
         (with-temp-buffer
           (set-buffer-multibyte nil)
           (insert-file-contents-literally file)
           (should (equal (buffer-string) "\305\274\303\263\305\202w\r\n\351\n")))
         (should-not (directory-files rlm-test-folder nil "\\`\\.#\\|~\\'")))))))

;;;; Which text

(ert-deftest rlm-context-region-buffer-string ()
  "A region, a narrowed buffer and a string are what they look like."
  (with-temp-buffer
    (insert "one\ntwo\nthree\n")
    (let ((source (rlm-source-from (list (current-buffer) 5 8))))
      (should (equal "two" (rlm--source-string source)))
      (should (= 2 (rlm-source-line source))))
    (narrow-to-region 9 14)
    (let ((source (rlm-source-from (current-buffer))))
      (should (equal "three" (rlm--source-string source)))
      (should (= 3 (rlm-source-line source)))
      (should (= 5 (rlm-source-chars source))))
    (should (equal "abc" (rlm--source-string (rlm-source-from "abc"))))
    (narrow-to-region 1 1)
    (should-error (rlm-source-from (current-buffer)) :type 'user-error)
    (should-error (rlm-source-from 42) :type 'user-error)))

(ert-deftest rlm-context-private-text-is-marked ()
  "The variable marks a buffer; a decrypted file is private in any case."
  (with-temp-buffer
    (insert "x")
    (should-not (rlm-source-private (rlm-source-from (current-buffer))))
    (setq-local rlm-private t)
    (should (rlm-source-private (rlm-source-from (current-buffer))))
    (setq-local rlm-private nil)
    (require 'epa-hook)
    (setq buffer-file-name "/tmp/secret.gpg")
    (should (rlm-source-private (rlm-source-from (current-buffer))))
    (setq buffer-file-name nil)))

(ert-deftest rlm-context-unchanged-text-is-known ()
  "The same stretch is one source until its text changes."
  (with-temp-buffer
    (insert "some text")
    (let ((source (rlm-source-from (current-buffer))))
      (should-not (eq source (rlm-source-from (current-buffer)))) ; not loaded yet
      (setf (rlm-source-name source) "text-1")
      (rlm--source-remember source)
      (should (eq source (rlm-source-from (current-buffer))))
      (should-not (eq source (rlm-source-from (list (current-buffer) 1 3))))
      (setq-local rlm-private t)
      (should-not (eq source (rlm-source-from (current-buffer))))
      (setq-local rlm-private nil)
      (put-text-property 1 3 'face 'bold) ; no change of text
      (should (eq source (rlm-source-from (current-buffer))))
      (insert "!")
      (should-not (eq source (rlm-source-from (current-buffer)))))))

;;;; At the daemon

(ert-deftest rlm-context-offsets-are-the-daemons ()
  "By whichever way, the daemon has the buffer's characters at the same offsets."
  (rlm-test-with-daemon nil
    (let ((text (concat "żółw 🐢 日本\nsome é NEEDLE and more\n")))
      (pcase-dolist
          (`(,name ,coding ,change)
           `(("path" utf-8-unix ignore)
             ("crlf" utf-8-dos ignore)
             ("bom" utf-8-with-signature-unix ignore)
             ("narrowed" utf-8-unix ,(lambda () (narrow-to-region 3 (point-max))))
             ("raw" utf-8-unix
              ,(lambda () (goto-char 4) (insert "\r" (unibyte-char-to-multibyte #xe9))))
             ("large" utf-8-unix
              ,(lambda () (goto-char 1) (insert (make-string 300000 ?ż))))))
        (rlm-test-visiting (rlm-test-file name text coding)
          (funcall change)
          (let* ((source (rlm-source-from (current-buffer)))
                 (context (rlm-test-load source))
                 (at (progn (goto-char (point-min))
                            (- (search-forward "NEEDLE") 6 (point-min)))))
            (should (rlm-source-exact source))
            (should (equal (cons name (rlm-test-peek context at 10))
                           (cons name "NEEDLE and"))))))
      (should-not (directory-files (plist-get (rlm--client-server (rlm--client)) :spool_folder)
                                   nil "txt")))))

(defun rlm-test-written-by (work)
  "Call WORK; return the names of the files that Emacs wrote meanwhile."
  (let* ((files nil)
         (note (lambda (_start _end file &rest _) (push file files))))
    (advice-add 'write-region :before note)
    (unwind-protect (funcall work)
      (advice-remove 'write-region note))
    files))

(defmacro rlm-test-decrypted (text &rest body)
  "Run BODY in a buffer that shows TEXT, decrypted from a file."
  (declare (indent 1) (debug t))
  `(with-temp-buffer
     (require 'epa-hook)
     (insert ,text)
     (setq buffer-file-name "/tmp/secret.gpg")
     (set-buffer-modified-p nil)
     (unwind-protect (progn ,@body)
       (setq buffer-file-name nil))))

(ert-deftest rlm-context-decrypted-text-is-never-on-a-disk ()
  "However large, it goes by files in memory alone, and none is left; the daemon has it as ephemeral."
  (rlm-test-with-daemon nil
    (rlm-call-sync "daemon/status" nil)
    (let* ((server (rlm--client-server (rlm--client)))
           (text (concat (make-string 300000 ?x) "\nthe NEEDLE of the vault\n"))
           (before (directory-files "/dev/shm")))
      (setf (rlm--client-server (rlm--client)) (plist-put server :spool_in_memory :json-false))
      (rlm-test-decrypted text
        (let* ((source (rlm-source-from (current-buffer)))
               name
               (files (rlm-test-written-by (lambda () (setq name (rlm-test-load source))))))
          (should files)
          (should-not (seq-remove (lambda (file) (string-prefix-p "/dev/shm/" file)) files))
          (should (equal "NEEDLE of" (rlm-test-peek name 300005 9)))
          (should (eq t (plist-get (plist-get (rlm-call-sync "context/info" (list :name name)) :context) :ephemeral)))))
      (should (equal before (directory-files "/dev/shm")))
      ;; A plain text of this size goes by the spool.
      (should (equal (list (plist-get server :spool_folder))
                     (mapcar (lambda (file) (directory-file-name (file-name-directory file)))
                             (rlm-test-written-by (lambda () (rlm-test-load (rlm-source-from text))))))))))

(ert-deftest rlm-context-decrypted-text-needs-memory ()
  "Where the spool is in memory it is used; where there is no place in memory the text is not written at all."
  (rlm-test-with-server
    (rlm-call-sync "test/big" '(:chars 1))
    (let ((in-memory (lambda (value)
                       (setf (rlm--client-server (rlm--client))
                             (list :spool_folder rlm-test-folder :spool_in_memory value))))
          (socket (rlm-socket-path)))
      (rlm-test-decrypted (make-string 300000 ?x)
        (let ((source (rlm-source-from (current-buffer))))
          (funcall in-memory t)
          (should (equal "spool" (plist-get (rlm--source-wire source socket) :kind)))
          (funcall in-memory :json-false)
          (cl-letf* ((writable (symbol-function 'file-writable-p))
                     ((symbol-function 'file-writable-p)
                      (lambda (file) (and (not (string-prefix-p "/dev/shm" file)) (funcall writable file)))))
            (should-not (rlm-test-written-by
                         (lambda ()
                           (should (string-match-p "no place in memory"
                                                   (cadr (should-error (rlm--source-wire source socket)))))))))
          (delete-file (plist-get (rlm--source-wire source socket) :file)))))))

(ert-deftest rlm-context-what-is-sent-in-chunks-waits-in-memory ()
  "The file that an upload is read from is in the runtime folder, where there is one."
  (rlm-test-with-home
    (should (equal (file-name-as-directory (getenv "XDG_RUNTIME_DIR"))
                   (file-name-directory (rlm--upload-file))))))

(ert-deftest rlm-context-a-large-text-is-kept-when-its-buffer-goes ()
  "What was asked about before the daemon was there is asked about, whatever became of its buffer."
  (rlm-test-with-home
    (dolist (what '(change kill))
      (let* ((text (make-string (* 2 rlm--snapshot-chars) ?x))
             (buffer (generate-new-buffer "large"))
             (source (with-current-buffer buffer
                       (insert text)
                       (rlm-source-from buffer))))
        (rlm--source-snapshot source)
        (should-not (rlm-source-text source)) ; no copy without need
        (with-current-buffer buffer
          (if (eq what 'change) (erase-buffer) (kill-buffer)))
        (should (equal text (rlm-source-text source)))))))

(ert-deftest rlm-context-a-text-that-is-gone-ends-its-run ()
  "What cannot be taken to the daemon ends the run with the reason; it does not load for ever."
  (rlm-test-with-daemon nil
    (rlm-call-sync "daemon/status" nil)
    (let ((run (with-temp-buffer
                 (rename-buffer "gone.txt" t)
                 (insert "text")
                 (let ((source (rlm-source-from (current-buffer))))
                   (kill-buffer)
                   (rlm-query "Q?" source)))))
      (rlm-wait run rlm-test-patience)
      (should (eq 'failed (rlm-run-state run)))
      (should (string-match-p "gone\\.txt has been killed" (rlm-error-text (rlm-run-error run)))))))

(ert-deftest rlm-context-what-json-cannot-hold-comes-back ()
  "NUL, surrogates and raw bytes in a text do not lose the daemon's replies, which Emacs would drop silently."
  (rlm-test-with-daemon nil
    (let ((name (rlm-test-load (rlm-source-from
                                (concat "a" (string 0 #xd800 #xdfff (unibyte-char-to-multibyte #xe9)) "NEEDLE\n")))))
      (should (string-search "NEEDLE" (rlm-test-peek name 0 20)))
      (should (string-search "NEEDLE" (plist-get (elt (plist-get (rlm-call-sync
                                                                  "context/search" (list :name name :query "NEEDLE"))
                                                                 :hits)
                                                      0)
                                                 :text))))))

(ert-deftest rlm-context-json-holds-unicode-alone ()
  "What travels inline is what JSON can hold, whatever the case of letters means here."
  (dolist (text (list "" "A text" "żółw 🐢\n" (string #xd7ff #xe000 #x10ffff)))
    (should (equal (list text t) (list text (rlm--unicode-p text)))))
  (dolist (odd (list 0 #xd800 #xdfff #x110000 #x3fff7f (unibyte-char-to-multibyte #xe9)))
    (should-not (rlm--unicode-p (string ?a odd)))
    (should-not (rlm--unicode-p (string ?ż odd))))
  (should-not (rlm--unicode-p (unibyte-string 97 #xe9))))

(ert-deftest rlm-context-bytes-that-count-otherwise-are-noticed ()
  "Raw bytes that together are a character to the daemon make a source inexact.
So do Emacs' own characters above U+10FFFF, which are several to it."
  (rlm-test-with-daemon nil
    (dolist (odd (list (list (unibyte-char-to-multibyte #xc3) (unibyte-char-to-multibyte #xa9))
                       (list #x110000)
                       (list #x200000)))
      (with-temp-buffer
        (apply #'insert "a" odd)
        (insert "b")
        (let ((source (rlm-source-from (current-buffer))))
          (rlm-test-load source)
          (should-not (rlm-source-exact source)))))))

(ert-deftest rlm-context-a-file-the-daemon-does-not-see-is-spooled ()
  "If the daemon refuses the path, the text travels instead."
  (rlm-test-with-daemon nil
    (rlm-test-visiting (rlm-test-file "seen.txt" "what Emacs sees\n")
      (let ((source (rlm-source-from (current-buffer))))
        ;; Replaced under us in the instant after we looked.
        (cl-letf (((symbol-function 'rlm--source-path)
                   (let ((path (symbol-function 'rlm--source-path)))
                     (lambda (source)
                       (let ((wire (copy-tree (funcall path source))))
                         (plist-put (plist-get wire :identity) :inode "1")
                         wire)))))
          (let ((name (rlm-test-load source)))
            (should (equal "what Emacs" (rlm-test-peek name 0 10)))))))))

(ert-deftest rlm-context-a-refusal-leaves-no-spool-file ()
  "What the daemon does not want is deleted again."
  (rlm-test-with-server
    (rlm-test-answer "context/load" '(:code 1105 :message "The disk is full." :data (:hint "")))
    (let ((error nil))
      (setf (plist-get (rlm--client-server (rlm--client)) :spool_folder) rlm-test-folder)
      (rlm--source-load (rlm-source-from (make-string 300000 ?x)) (rlm-socket-path)
                        #'ignore (lambda (e) (setq error e)))
      (should (directory-files rlm-test-folder nil "\\.txt\\'"))
      (rlm-test-await error)
      (should (equal 1105 (plist-get error :code)))
      (should-not (directory-files rlm-test-folder nil "\\.txt\\'")))))

(provide 'rlm-context-test)
;;; rlm-context-test.el ends here
