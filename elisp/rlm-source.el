;;; rlm-source.el --- The texts that questions are asked of -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; An `rlm-source' is a text that a question is asked of: a stretch of
;; a buffer, a string, files and folders, or a context that the daemon
;; has.  Here one is made, and known again while its text is the same.
;; How it gets to the daemon is in rlm-context.el.
;;
;; The daemon counts code points of the text that it was given, so the
;; start of a stretch plus an offset is a position in the buffer.  A
;; source remembers the stretch by markers.  Where the daemon counts
;; otherwise than Emacs (its answer tells how many characters it has),
;; the source is marked as inexact, and citations are found by search.

;;; Code:

(require 'rlm-base)
(require 'cl-lib)
(require 'seq)

(defvar epa-file-name-regexp)

(defvar-local rlm-private nil
  "Non-nil if the text of this buffer may go to trusted hosts only.
Meant for file-local and directory-local variables.  Decrypted
files are private whatever this says.")
(put 'rlm-private 'safe-local-variable #'booleanp)

(cl-defstruct (rlm-source (:constructor rlm--source-make))
  "A text that questions are asked of."
  buffer
  (start nil :documentation "Marker of the stretch's first character.")
  (end nil :documentation "Marker after its last one.")
  (tick nil :documentation "`buffer-chars-modified-tick' when it was taken.")
  (text nil :documentation "The text itself: of a string, or a snapshot.")
  (chars 0)
  (line 1 :documentation "Number of the stretch's first line in its buffer.")
  (label nil :documentation "What a person calls the text: its buffer's name.")
  (file nil :documentation "The visited file, if any.")
  (private nil)
  (ephemeral nil :documentation "Non-nil if it must never be on a disk.")
  (name nil :documentation "The context's name, once the daemon has it.")
  (socket nil :documentation "Of the daemon that has it.")
  (exact t :documentation "Nil if the daemon's offsets are not ours.")
  (paths nil :documentation "Local files and folders, which the daemon reads itself.")
  (stored nil :documentation "Non-nil for a context that the daemon has by its name.")
  (keep nil :documentation "The name under which the text is to be kept.")
  (prepare nil :documentation "Function of SOURCE, SUCCESS, FAILURE that makes the text.")
  (place nil :documentation "Function of SOURCE, CITATION: see `rlm--citation-place'.")
  (where nil :documentation "Function of SOURCE, CITATION: the label for a person."))

;;;; Making one

(defun rlm-source-from (object &optional start end)
  "Return the source for OBJECT: a buffer, buffer name in a list, or string.
With START and END that stretch of the buffer, else its accessible part.
OBJECT may also be an `rlm-source', or a list (BUFFER START END)."
  (cond
   ((rlm-source-p object) object)
   ((bufferp object) (rlm--source-from-buffer object start end))
   ((stringp object) (rlm--source-from-string object "a string"))
   ((consp object) (apply #'rlm-source-from object))
   (t (user-error "Not a buffer or a string: %S" object))))

(defun rlm--source-from-string (text label)
  "Return the source for TEXT, which a person calls LABEL.
In a private buffer it is private: it may well be from there."
  (when (string-empty-p text)
    (user-error "There is no text to ask about"))
  (rlm--source-make :text text :chars (length text) :label label
                    :private (rlm--private-p) :ephemeral (rlm--decrypted-p)))

(defun rlm--source-from-paths (paths label)
  "Return the source for PATHS, local files and folders, called LABEL."
  (rlm--source-make :paths (mapcar (lambda (path) (file-truename path)) paths)
                    :chars nil :label label
                    :private (seq-some #'rlm--path-private-p paths)))

(defun rlm--source-from-context (name)
  "Return the source for the context NAME that the daemon has."
  (rlm--source-make :name name :label name :stored t :chars nil))

(defun rlm--source-closed (source)
  "Return a source for the text of SOURCE that is private.
Of a context that the daemon has, that is for the daemon to say."
  (cond
   ((rlm-source-private source) source)
   ((rlm-source-stored source)
    (user-error "The context %s is kept as it is; to make it private: rlmctl context flags %s --private"
                (rlm-source-name source) (rlm-source-name source)))
   (t (let ((closed (copy-rlm-source source)))
        (setf (rlm-source-private closed) t
              (rlm-source-name closed) nil)
        closed))))

(defun rlm--path-private-p (path)
  "Return non-nil if directory-local variables make PATH private."
  (with-temp-buffer
    (setq default-directory (if (file-directory-p path)
                                (file-name-as-directory path)
                              (file-name-directory (expand-file-name path))))
    (let ((enable-local-variables :safe))
      (hack-dir-local-variables-non-file-buffer))
    rlm-private))

(defun rlm--source-from-buffer (buffer start end)
  "Return the source for BUFFER from START to END."
  (unless (buffer-live-p buffer)
    (user-error "The buffer has been killed"))
  (with-current-buffer buffer
    (let ((start (or start (point-min)))
          (end (or end (point-max))))
      (when (= start end)
        (user-error "There is no text to ask about"))
      (or (rlm--source-known buffer start end)
          (rlm--source-make
           :buffer buffer
           :start (copy-marker start)
           :end (copy-marker end t)
           :tick (buffer-chars-modified-tick)
           :chars (- end start)
           :line (rlm--line-number start)
           :label (buffer-name)
           :file buffer-file-name
           :private (rlm--private-p)
           :ephemeral (rlm--decrypted-p))))))

(defun rlm--line-number (position)
  "Return the line of POSITION in the whole buffer."
  (save-restriction
    (widen)
    (line-number-at-pos position)))

(defun rlm--private-p ()
  "Return non-nil if the current buffer's text must not leave trusted hosts."
  (or rlm-private (rlm--decrypted-p)))

(defun rlm--decrypted-p ()
  "Return non-nil if the current buffer shows a file that is encrypted on the disk."
  (and buffer-file-name
       (boundp 'epa-file-name-regexp)
       (string-match-p epa-file-name-regexp buffer-file-name)
       t))

(defvar-local rlm--sources nil
  "Sources made of this buffer that the daemon has, newest first.")

(defconst rlm--sources-kept 8
  "How many sources a buffer remembers.")

(defun rlm--source-known (buffer start end)
  "Return the source of BUFFER from START to END that the daemon has.
Nil if the text has changed since it was taken."
  (with-current-buffer buffer
    (let ((tick (buffer-chars-modified-tick))
          (private (and (rlm--private-p) t)))
      (seq-find (lambda (source)
                  (and (eql tick (rlm-source-tick source))
                       (rlm-source-name source)
                       (eq private (and (rlm-source-private source) t))
                       (= start (rlm-source-start source))
                       (= end (rlm-source-end source))))
                rlm--sources))))

(defun rlm--source-remember (source)
  "Let SOURCE be found when its buffer is asked about again."
  (when (buffer-live-p (rlm-source-buffer source))
    (with-current-buffer (rlm-source-buffer source)
      (setq rlm--sources (seq-take (cons source (delq source rlm--sources))
                                   rlm--sources-kept)))))

(defun rlm--source-unchanged-p (source)
  "Return non-nil if SOURCE's buffer still holds what was taken."
  (and (buffer-live-p (rlm-source-buffer source))
       (eql (rlm-source-tick source)
            (buffer-chars-modified-tick (rlm-source-buffer source)))))

(defun rlm--describe (sources)
  "Return what SOURCES are, for a person."
  (mapconcat (lambda (source)
               (if (rlm-source-chars source)
                   (format "%s (%s)" (rlm-source-label source)
                           (rlm--count (rlm-source-chars source) "character"))
                 (rlm-source-label source)))
             sources ", "))

;;;; Its text

(defun rlm--source-string (source)
  "Return SOURCE's text as a string."
  (or (rlm-source-text source)
      (rlm--with-source source #'buffer-substring-no-properties)))

(defun rlm--with-source (source function)
  "Call FUNCTION with start and end of SOURCE in its buffer, widened."
  (unless (buffer-live-p (rlm-source-buffer source))
    (user-error "The buffer %s has been killed" (rlm-source-label source)))
  (with-current-buffer (rlm-source-buffer source)
    (save-restriction
      (widen)
      (funcall function
               (marker-position (rlm-source-start source))
               (marker-position (rlm-source-end source))))))

(provide 'rlm-source)
;;; rlm-source.el ends here
