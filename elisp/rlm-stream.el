;;; rlm-stream.el --- Put a growing text into a buffer -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; An `rlm--stream' is a stretch of a buffer that a text grows into.
;; What comes first is inserted at once; what comes then is gathered and
;; inserted twenty times a second: one insertion for each piece that a
;; model sends would cost Emacs ten times as much.  At each turn as much
;; is taken as a short time allows, so that a huge answer does not hold
;; up typing; where more is left the next turn comes soon.
;;
;; Whole lines are converted and stay; the last line, still growing,
;; is converted provisionally, and only the part of it that changed is
;; replaced.  Point moves only in windows that stood at the very end;
;; they follow.
;;
;; The stretch lies between markers, so several streams may grow in
;; one buffer and a person may edit around them.

;;; Code:

(require 'rlm-org)
(require 'cl-lib)
(require 'seq)
(require 'subr-x)

(defcustom rlm-convert-markdown t
  "Whether the Markdown of answers is converted to Org.
If nil it stays as it is, but for what would tear an Org document."
  :type 'boolean
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defconst rlm--stream-interval 0.05
  "Seconds between two insertions, if the first took all that there was.
Measured with 2000 pieces in Emacs 30: 1.3 s of CPU so, 2.3 s with
an insertion for each.")

(defconst rlm--stream-chars 4000
  "Characters converted between two looks at the clock.
Converting them took 1 ms, or 15 ms where every word is marked up,
compiled, in Emacs 28 on a busy machine.")

(defconst rlm--stream-seconds 0.01
  "Seconds after which no more text is taken at one insertion.")

(defconst rlm--stream-rest 0.005
  "Seconds between two insertions, if the first left something.
Keys that were typed meanwhile are served before timers.")

(defconst rlm--stream-line 4000
  "Characters after which a line that has not ended is taken as it is.
It would otherwise be converted anew at each insertion.")

(cl-defstruct (rlm--stream (:constructor rlm--stream-make) (:copier nil))
  "A stretch of a buffer that a text grows into."
  (beg nil :documentation "Marker of the first character.")
  (tail nil :documentation "Marker where the provisional part begins.")
  (end nil :documentation "Marker after the last; what is put there is ours.")
  (state (rlm--org-make) :documentation "The conversion's.")
  (pending nil :documentation "Strings not yet taken, last first.")
  (ready nil :documentation "Older strings not yet taken, first first.")
  (from 0 :documentation "Characters of the first of them that are taken.")
  (partial "" :documentation "The text of the line that has not ended.")
  (timer nil)
  (due 0.0 :documentation "Time before which nothing is inserted.")
  (there nil :documentation "Function of the stream, or nil: whether its place is still there.")
  (closing nil :documentation "Function to call when all is inserted."))

(defun rlm--stream-open (buffer position &optional there)
  "Return a new stream at POSITION of BUFFER.
THERE, a function of it, says before each insertion whether its place
is still there; if not, it ends."
  (with-current-buffer buffer
    (rlm--stream-make :there there :beg (copy-marker position)
                      :tail (copy-marker position)
                      :end (copy-marker position t))))

(defun rlm--stream-buffer (stream)
  "Return the buffer of STREAM if it lives."
  (marker-buffer (rlm--stream-end stream)))

(defun rlm--stream-write (stream text)
  "Let TEXT grow into STREAM."
  (push text (rlm--stream-pending stream))
  (rlm--stream-schedule stream))

(defun rlm--stream-close (stream function)
  "Call FUNCTION when all that was written to STREAM is inserted.
Then STREAM is no more."
  (setf (rlm--stream-closing stream) function)
  (rlm--stream-schedule stream))

(defun rlm--stream-reset (stream)
  "Remove the text of STREAM, to begin anew."
  (rlm--stream-drop stream)
  (setf (rlm--stream-partial stream) ""
        (rlm--stream-state stream) (rlm--org-make))
  (when-let ((buffer (rlm--stream-buffer stream)))
    (with-current-buffer buffer
      (let ((inhibit-read-only t))
        (save-excursion
          (save-restriction
            (widen)
            (delete-region (rlm--stream-beg stream) (rlm--stream-end stream))))))))

(defun rlm--stream-stop (stream)
  "Insert nothing more into STREAM."
  (rlm--stream-cancel-timer stream)
  (rlm--stream-drop stream)
  (setf (rlm--stream-closing stream) nil))

(defun rlm--stream-drop (stream)
  "Forget what STREAM has gathered."
  (setf (rlm--stream-pending stream) nil
        (rlm--stream-ready stream) nil
        (rlm--stream-from stream) 0))

(defun rlm--stream-more-p (stream)
  "Return non-nil if STREAM has gathered text that is not taken."
  (or (rlm--stream-ready stream) (rlm--stream-pending stream)))

(defun rlm--stream-cancel-timer (stream)
  "Cancel the timer of STREAM."
  (when (rlm--stream-timer stream)
    (cancel-timer (rlm--stream-timer stream))
    (setf (rlm--stream-timer stream) nil)))

(defun rlm--stream-schedule (stream)
  "See to it that STREAM's text is inserted soon."
  (unless (rlm--stream-timer stream)
    (setf (rlm--stream-timer stream)
          (run-at-time (max 0 (- (rlm--stream-due stream) (float-time)))
                       nil #'rlm--stream-tick stream))))

(defun rlm--stream-tick (stream)
  "Insert some of what STREAM has gathered."
  (setf (rlm--stream-timer stream) nil)
  (if (not (and (rlm--stream-buffer stream)
                (or (null (rlm--stream-there stream))
                    (funcall (rlm--stream-there stream) stream))))
      (rlm--stream-stop stream)
    (condition-case err
        (rlm--stream-advance stream)
      (error (message "rlm: %s" (error-message-string err))))))

(defun rlm--stream-advance (stream)
  "Insert the next part of STREAM; come again, or close, if that is all."
  (let* ((lines (rlm--stream-convert-some stream))
         (more (rlm--stream-more-p stream))
         (closing (and (not more) (rlm--stream-closing stream))))
    (when closing
      (push (rlm--stream-convert stream "" t) lines))
    (rlm--stream-replace stream (apply #'concat (nreverse lines))
                         (if closing "" (rlm--stream-provisional stream)))
    (setf (rlm--stream-due stream)
          (+ (float-time) (if more rlm--stream-rest rlm--stream-interval)))
    (cond (more (rlm--stream-schedule stream))
          (closing
           (setf (rlm--stream-closing stream) nil)
           (set-marker-insertion-type (rlm--stream-end stream) nil)
           (funcall closing)))))

(defun rlm--stream-convert-some (stream)
  "Return lines of STREAM, converted, as many as a short time allows, last first."
  (let ((deadline (+ (float-time) rlm--stream-seconds))
        lines)
    (while (progn
             (push (rlm--stream-convert stream (rlm--stream-take stream) nil) lines)
             (and (rlm--stream-more-p stream) (< (float-time) deadline))))
    lines))

(defun rlm--stream-take (stream)
  "Return the next characters of STREAM, and leave the others."
  (let ((room rlm--stream-chars)
        taken)
    (while (and (> room 0) (rlm--stream-more-p stream))
      (unless (rlm--stream-ready stream)
        (setf (rlm--stream-ready stream) (nreverse (rlm--stream-pending stream))
              (rlm--stream-pending stream) nil))
      (let* ((string (car (rlm--stream-ready stream)))
             (from (rlm--stream-from stream))
             (to (min (length string) (+ from room))))
        (push (if (= (- to from) (length string)) string (substring string from to)) taken)
        (setq room (- room (- to from)))
        (if (< to (length string))
            (setf (rlm--stream-from stream) to)
          (pop (rlm--stream-ready stream))
          (setf (rlm--stream-from stream) 0))))
    (apply #'concat (nreverse taken))))

(defun rlm--stream-convert (stream text last)
  "Return the lines that TEXT completes in STREAM, converted.
With LAST the line that has not ended is among them."
  (let* ((lines (split-string (concat (rlm--stream-partial stream) text) "\n"))
         (partial (car (last lines)))
         (state (rlm--stream-state stream))
         (result nil))
    (dolist (line (butlast lines))
      (push (rlm--stream-line line state) result)
      (push "\n" result))
    (cond
     (last
      (unless (string-empty-p partial)
        (push (rlm--stream-line partial state) result)
        (push "\n" result))
      (when-let ((end (rlm--org-end state)))
        (push end result)
        (push "\n" result))
      (setq partial ""))
     ((> (length partial) rlm--stream-line)
      (push (rlm--stream-line partial state) result)
      (setq partial "")))
    (setf (rlm--stream-partial stream) partial)
    (apply #'concat (nreverse result))))

(defun rlm--stream-line (line state)
  "Return LINE converted, as the user wants it, given STATE."
  (if rlm-convert-markdown
      (rlm--org-line line state)
    (rlm--org-harmless (rlm--org-plain line))))

(defun rlm--stream-provisional (stream)
  "Return what to show of the line of STREAM that has not ended."
  (let ((partial (rlm--stream-partial stream))
        (state (rlm--org-copy (rlm--stream-state stream))))
    (if (or (string-empty-p partial)
            (rlm--org-undecided-p partial state))
        ""
      (rlm--stream-line partial state))))

(defun rlm--stream-replace (stream lines provisional)
  "Put LINES and PROVISIONAL in the place of what STREAM shows provisionally."
  (with-current-buffer (rlm--stream-buffer stream)
    (save-restriction
      (widen)
      (let* ((inhibit-read-only t)
             (tail (rlm--stream-tail stream))
             (end (rlm--stream-end stream))
             (following (rlm--stream-followers end))
             (new (concat lines provisional))
             (old (buffer-substring-no-properties tail end))
             (same (rlm--common-prefix old new))
             (start (marker-position tail)))
        (save-excursion
          (goto-char (+ start same))
          (delete-region (point) end)
          (insert (substring new same)))
        (set-marker tail (+ start (length lines)))
        (rlm--stream-follow following end)))))

(defun rlm--common-prefix (a b)
  "Return how many characters A and B have in common at their beginning."
  (let ((difference (compare-strings a nil nil b nil nil)))
    (if (eq difference t) (length a) (1- (abs difference)))))

(defun rlm--stream-followers (end)
  "Return the windows, and t for the buffer itself, whose point is at END."
  (let ((windows (seq-filter (lambda (window) (= end (window-point window)))
                             (get-buffer-window-list nil nil t))))
    (if (= end (point)) (cons t windows) windows)))

(defun rlm--stream-follow (followers end)
  "Move the point of FOLLOWERS to END."
  (dolist (follower followers)
    (if (eq follower t)
        (goto-char end)
      (set-window-point follower end))))

(provide 'rlm-stream)
;;; rlm-stream.el ends here
