;;; rlm-context.el --- Take texts to the daemon -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A source is taken to the daemon by the cheapest of the ways that keep
;; offsets true:
;;
;; - by path, if the buffer shows a whole local file byte for byte;
;; - inline, if it is small;
;; - else by a spool file in a folder that the daemon names;
;; - or in chunks, if the daemon does not share our files.
;;
;; Large text never becomes JSON: 40 MB of it would freeze Emacs for
;; five seconds, and a spool file takes a third of one.  A text that must
;; never be on a disk is spooled only where the spool is in memory.

;;; Code:

(require 'rlm-rpc)
(require 'rlm-source)
(require 'rlm-upload)
(require 'cl-lib)
(require 'seq)

;;;; Taking it there

(defun rlm--source-snapshot (source)
  "Keep SOURCE's text as it is now, if it must be sent from memory.
For when the daemon still starts: what was asked about is the text
at that moment."
  (unless (or (rlm-source-name source)
              (rlm-source-text source)
              (rlm-source-paths source)
              (rlm-source-prepare source)
              (rlm--source-path source))
    (if (<= (rlm-source-chars source) rlm--snapshot-chars)
        (setf (rlm-source-text source) (rlm--source-string source))
      (rlm--source-guard source))))

(defconst rlm--snapshot-chars 262144
  "Characters of a text above which a copy is made only if it must be.")

(defun rlm--source-guard (source)
  "Keep SOURCE's text when its buffer is about to change or to be killed.
Most are taken to the daemon before that, and a copy of 40 MB would
be in memory for nothing."
  (with-current-buffer (rlm-source-buffer source)
    (letrec ((keep (lambda (&rest _)
                     (remove-hook 'before-change-functions keep t)
                     (remove-hook 'kill-buffer-hook keep t)
                     (unless (rlm-source-name source) ; the daemon has it
                       (setf (rlm-source-text source) (rlm--source-string source))))))
      (add-hook 'before-change-functions keep nil t)
      (add-hook 'kill-buffer-hook keep nil t))))

(defun rlm--source-load (source socket success failure)
  "Have the daemon at SOCKET load SOURCE; call SUCCESS with its name.
FAILURE is called with an error.  The connection is ready."
  (let ((send (lambda ()
                (if (and (rlm-source-paths source) (file-remote-p socket))
                    (rlm--source-send-file source socket success failure)
                  (rlm--source-send source socket (rlm--source-wire source socket)
                                    success failure)))))
    (cond ((and (rlm-source-name source) (not (rlm-source-keep source))
                (member (rlm-source-socket source) (list nil socket)))
           (funcall success (rlm-source-name source)))
          ((and (rlm-source-prepare source) (null (rlm-source-text source)))
           (funcall (rlm-source-prepare source) source send failure))
          (t (condition-case err
                 (funcall send)
               ;; Its buffer was killed, its file is gone, there is no room.
               (error (funcall failure (rlm--problem (error-message-string err)))))))))

(defun rlm--source-send (source socket wire success failure)
  "Load WIRE, the wire's form of SOURCE, at SOCKET.
SUCCESS and FAILURE as in `rlm--source-load'."
  (if (equal "upload" (plist-get wire :kind))
      (rlm--upload (plist-get wire :file)
                   (append (list :origin (rlm--source-origin source))
                           (rlm--source-flags source))
                   socket
                   (lambda (result)
                     (rlm--source-loaded source result socket)
                     (funcall success (rlm-source-name source)))
                   failure)
    (rlm--source-send-load source socket wire success failure)))

(defun rlm--source-flags (source)
  "Return what is said of SOURCE besides its text: whether private, its name."
  (append (list :private (if (rlm-source-private source) t :json-false))
          (when (rlm-source-ephemeral source)
            (list :ephemeral t))
          (when (rlm-source-keep source)
            (list :name (rlm-source-keep source)))))

(defun rlm--source-send-file (source socket success failure)
  "Take the file that SOURCE is to SOCKET, on another machine.
SUCCESS and FAILURE as in `rlm--source-load'."
  (pcase (rlm-source-paths source)
    ((and `(,path) (guard (file-regular-p path)))
     (let ((copy (rlm--upload-file)))
       (copy-file path copy t)
       (rlm--upload copy (append (list :origin path :raw :json-false)
                                 (rlm--source-flags source))
                    socket
                    (lambda (result)
                      (rlm--source-loaded source result socket)
                      (funcall success (rlm-source-name source)))
                    failure)))
    (_ (funcall failure
                (rlm--problem (format "The daemon at %s does not see these files."
                                      (file-remote-p socket 'host))
                              "Ask of one file or buffer at a time, or of a context that it has.")))))

(defun rlm--source-send-load (source socket wire success failure)
  "Have context/load take WIRE, SOURCE at SOCKET.
SUCCESS and FAILURE as in `rlm--source-load'."
  (let ((by-path (and (equal "path" (plist-get wire :kind))
                      (null (rlm-source-paths source)))))
    (rlm-call
     "context/load"
     (append (list :source wire) (rlm--source-flags source))
     :socket socket
     :success
     (lambda (result)
       (if (and by-path (/= (plist-get result :chars) (rlm-source-chars source)))
           ;; The file holds bytes that the daemon reads otherwise.
           (rlm--source-send source socket (rlm--source-by-file source socket)
                             success failure)
         (rlm--source-loaded source result socket)
         (funcall success (rlm-source-name source))))
     :failure
     (lambda (error)
       (rlm--forget-spool wire socket)
       (if by-path
           ;; Another namespace, another machine, a file changed meanwhile:
           ;; whatever it was, the text is here.
           (rlm--source-send source socket (rlm--source-by-file source socket)
                             success failure)
         (funcall failure error))))))

(defun rlm--source-loaded (source result socket)
  "The daemon at SOCKET has SOURCE; RESULT is what context/load answered."
  (setf (rlm-source-socket source) socket
        (rlm-source-name source)
        (plist-get (plist-get result :context) :name)
        (rlm-source-exact source)
        (or (null (rlm-source-chars source))
            (= (plist-get result :chars) (rlm-source-chars source))))
  (when (rlm-source-paths source)
    (setf (rlm-source-chars source) (plist-get result :chars)))
  (when (and (rlm-source-buffer source) (null (rlm-source-prepare source)))
    (setf (rlm-source-text source) nil))
  (rlm--source-remember source))

(defun rlm--source-wire (source socket)
  "Return SOURCE as the parameter of context/load at SOCKET."
  (or (and (rlm-source-paths source)
           (list :kind "path" :paths (vconcat (rlm-source-paths source))))
      (and (null (rlm-source-text source)) (not (file-remote-p socket))
           (rlm--source-path source))
      (rlm--source-inline source (rlm--inline-bytes socket))
      (rlm--source-by-file source socket)))

;;;;; By path

(defun rlm--source-path (source)
  "Return SOURCE as a path on the wire, or nil if the file is not its text."
  (when-let ((buffer (and (null (rlm-source-prepare source))
                          (rlm-source-buffer source))))
    (and (buffer-live-p buffer)
         (rlm--source-unchanged-p source)
         (with-current-buffer buffer
           (and (= 1 (rlm-source-start source))
                (= (rlm-source-end source) (1+ (buffer-size)))
                (rlm--plain-file-p)
                (rlm--file-wire buffer-file-name))))))

(defun rlm--plain-file-p ()
  "Return non-nil if the current buffer is its local file, byte for byte."
  (and buffer-file-name
       (not (file-remote-p buffer-file-name))
       (not (buffer-modified-p))
       enable-multibyte-characters
       (memq (coding-system-base (or buffer-file-coding-system 'undecided))
             '(utf-8 undecided prefer-utf-8 us-ascii))
       (eql 0 (coding-system-eol-type (or buffer-file-coding-system 'undecided)))
       (verify-visited-file-modtime (current-buffer))))

(defun rlm--file-wire (file)
  "Return FILE as a path on the wire, or nil.
Equal sizes exclude what was decoded, decompressed or decrypted on
the way into the current buffer."
  (let* ((true (file-truename file))
         (attributes (file-attributes true))
         (device (file-attribute-device-number attributes))
         (inode (file-attribute-inode-number attributes))
         (size (file-attribute-size attributes)))
    (when (and (integerp device) (integerp inode)
               (= size (1- (position-bytes (1+ (buffer-size))))))
      (list :kind "path"
            :paths (vector true)
            :identity
            (list :device (number-to-string device)
                  :inode (number-to-string inode)
                  :size (number-to-string size)
                  :mtime_ns (number-to-string
                             (car (time-convert
                                   (file-attribute-modification-time attributes)
                                   1000000000))))))))

;;;;; Inline

(defun rlm--inline-bytes (socket)
  "Return how many bytes the daemon at SOCKET takes inline."
  (or (plist-get (rlm--client-server (rlm--client socket)) :inline_bytes)
      262144))

(defconst rlm--not-unicode (format "[^\1-%c%c-%c]" #xd7ff #xe000 #x10ffff)
  "Regexp for a character that JSON has no place for.")

(defun rlm--unicode-p (text)
  "Return non-nil if TEXT can travel in JSON.
It has no raw byte, surrogate, NUL, or character of Emacs alone."
  ;; Folding case over ranges as large as these takes 6 ms.
  (let ((case-fold-search nil))
    (not (string-match-p (if (= (string-bytes text) (length text))
                             "[\0\200-\377]" ; unibyte, or ASCII
                           rlm--not-unicode)
                         text))))

(defun rlm--source-inline (source limit)
  "Return SOURCE inline, or nil if it has over LIMIT bytes or is not Unicode."
  (when (<= (rlm-source-chars source) limit) ; cheap, so looked at first
    (let ((text (rlm--source-string source)))
      (when (and (<= (string-bytes text) limit)
                 (rlm--unicode-p text))
        (list :kind "inline" :text text :origin (rlm--source-origin source))))))

(defun rlm--source-origin (source)
  "Return the label that citations of SOURCE show."
  (let ((label (rlm-source-label source)))
    (substring label 0 (min 200 (length label)))))

;;;;; By spool file

(defun rlm--spool-folder (socket)
  "Return the spool folder of the daemon at SOCKET."
  (or (plist-get (rlm--client-server (rlm--client socket)) :spool_folder)
      (error "The daemon named no spool folder")))

(defun rlm--source-by-file (source socket)
  "Write SOURCE into a file for SOCKET; return its wire form.
It is a spool file where the daemon and we share a folder for them,
which for an ephemeral text must be in memory."
  (let* ((default-directory temporary-file-directory)
         (folder (and (not (file-remote-p socket)) (rlm--spool-folder socket))))
    (if (and folder (file-writable-p folder)
             (or (not (rlm-source-ephemeral source))
                 (rlm--true-p (plist-get (rlm--client-server (rlm--client socket))
                                         :spool_in_memory))))
        (let ((name (concat (rlm--spool-name) ".txt")))
          (rlm--source-write source (expand-file-name name folder))
          (list :kind "spool" :file name :origin (rlm--source-origin source)))
      (let ((file (rlm--upload-file (rlm-source-ephemeral source))))
        (rlm--source-write source file)
        (list :kind "upload" :file file)))))

(defun rlm--upload-file (&optional ephemeral)
  "Return the name of a new file, in memory where the system has a place for it.
If EPHEMERAL, and it has none, signal an error."
  (let* ((runtime (file-name-directory (directory-file-name (rlm--runtime-folder))))
         (folders (if ephemeral '("/dev/shm") (list runtime temporary-file-directory))))
    (expand-file-name (concat "rlm-" (rlm--spool-name))
                      (or (seq-find #'file-writable-p folders)
                          (error "There is no place in memory for a decrypted text of this size")))))

(defun rlm--source-write (source file)
  "Write SOURCE to FILE, as it is now."
  (if (rlm-source-text source)
      (rlm--write-spool (rlm-source-text source) nil file)
    (rlm--with-source source
                      (lambda (start end)
                        ;; What is taken is what is there now.
                        (setf (rlm-source-tick source) (buffer-chars-modified-tick)
                              (rlm-source-chars source) (- end start))
                        (rlm--write-spool start end file)))))

(defun rlm--spool-name ()
  "Return a file name that is not there yet."
  (secure-hash 'sha1 (format "%d %d %S %s" (random) (emacs-pid)
                             (current-time) (system-name))))

(defun rlm--write-spool (start end file)
  "Write START to END, as in `write-region', to FILE for the daemon alone.
Raw bytes stay what they are, lines keep their ends, and nothing
that saving a file would do happens."
  (let ((coding-system-for-write 'utf-8-unix)
        (write-region-inhibit-fsync t)
        (write-region-annotate-functions nil)
        (write-region-post-annotation-function nil)
        (buffer-file-format nil)
        (file-name-handler-alist nil)
        (create-lockfiles nil)
        (inhibit-message t)
        (message-log-max nil))
    (with-file-modes #o600
      (condition-case err
          (write-region start end file nil 'silent nil 'excl)
        (error
         (ignore-errors (delete-file file))
         (signal (car err) (cdr err)))))))

(defun rlm--forget-spool (wire socket)
  "Delete the spool file of WIRE at SOCKET if the daemon has left it."
  (when (equal "spool" (plist-get wire :kind))
    (let ((default-directory temporary-file-directory))
      (ignore-errors
        (delete-file (expand-file-name (plist-get wire :file)
                                       (rlm--spool-folder socket)))))))

(provide 'rlm-context)
;;; rlm-context.el ends here
