;;; rlm-upload.el --- Take a file to the daemon in chunks -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; For a daemon that does not see our files, on another machine or in
;; another namespace.  What is sent is a file, whose digest says what it
;; will be: an upload that was cut off goes on where it was.  Each chunk
;; is sent when the one before has arrived, from a timer, so that typing
;; is never held up for longer than one takes.

;;; Code:

(require 'rlm-rpc)
(require 'rlm-start)

(defconst rlm--upload-bytes 131072
  "Bytes of a chunk: below what Emacs writes to a socket in one go.")

(defun rlm--upload (file params socket success failure)
  "Take FILE to the daemon at SOCKET, and delete it.
PARAMS are more of context/begin.  SUCCESS is called with what
context/commit answers, FAILURE with an error."
  (let ((bytes (file-attribute-size (file-attributes file)))
        (gone (lambda (then)
                (lambda (value)
                  (ignore-errors (delete-file file))
                  (funcall then value)))))
    (rlm--file-digest
     file
     (lambda (digest)
       (rlm-call "context/begin" (append (list :digest digest :bytes bytes) params)
                 :socket socket
                 :success (lambda (upload)
                            (rlm--upload-on file bytes upload socket
                                            (funcall gone success) (funcall gone failure)))
                 :failure (funcall gone failure))))))

(defun rlm--file-digest (file callback)
  "Call CALLBACK with the SHA-256 of FILE.
Another process computes it where there is sha256sum: for 40 MB
Emacs would stand still for a third of a second."
  (let ((here (lambda ()
                (with-temp-buffer
                  (set-buffer-multibyte nil)
                  (insert-file-contents-literally file)
                  (secure-hash 'sha256 (current-buffer)))))
        (program (executable-find "sha256sum")))
    (if (null program)
        (funcall callback (funcall here))
      (rlm--spawn (list program "--" file)
                  (lambda (_status output)
                    (funcall callback
                             (if (string-match "\\`\\\\?\\([0-9a-f]\\{64\\}\\) " output)
                                 (match-string 1 output)
                               (funcall here))))))))

(defun rlm--upload-on (file bytes upload socket success failure)
  "Send the next chunk of FILE, of BYTES bytes, or commit.
UPLOAD is what the daemon at SOCKET answered last; SUCCESS and
FAILURE as in `rlm--upload'."
  (let ((id (plist-get upload :upload_id))
        (from (plist-get upload :received)))
    (if (>= from bytes)
        (rlm-call "context/commit" (list :upload_id id)
                  :socket socket :success success :failure failure)
      (condition-case err
          (rlm-call "context/append"
                    (list :upload_id id :offset from
                          :data (rlm--chunk file from (min (or (plist-get upload :chunk_bytes)
                                                               rlm--upload-bytes)
                                                           rlm--upload-bytes)))
                    :socket socket
                    :success (lambda (upload)
                               (run-at-time 0 nil #'rlm--guarded #'rlm--upload-on
                                            file bytes upload socket success failure))
                    :failure failure)
        ;; The file or the daemon is gone.
        (error (funcall failure (rlm--problem (error-message-string err))))))))

(defun rlm--chunk (file from count)
  "Return COUNT bytes of FILE from the byte FROM, in Base64."
  (with-temp-buffer
    (set-buffer-multibyte nil)
    (insert-file-contents-literally file nil from (+ from count))
    (base64-encode-region (point-min) (point-max) t)
    (buffer-string)))

(provide 'rlm-upload)
;;; rlm-upload.el ends here
