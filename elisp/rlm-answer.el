;;; rlm-answer.el --- The buffer that shows a run -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; An answer buffer is an Org buffer with one run.  Its head says what
;; was asked of what; then the answer grows; at the end come notes, the
;; citations as links, and as the last line the receipt.  The header
;; line tells how far the run is.  It is the run's observer, so that
;; other views (a trace, a list) can stand beside it.

;;; Code:

(require 'rlm-header)
(require 'rlm-run)
(require 'rlm-context)
(require 'rlm-stream)
(require 'rlm-cite)
(require 'org)

(autoload 'rlm-cancel "rlm-ask" nil t)
(autoload 'rlm-attach "rlm-ask" nil t)
(autoload 'rlm-confirm "rlm-ask" nil t)
(autoload 'rlm-trace "rlm-trace" nil t)
(autoload 'rlm-answer-menu "rlm-transient" nil t)
(autoload 'rlm-follow-up "rlm-again" nil t)
(autoload 'rlm-retry "rlm-again" nil t)
(autoload 'rlm-continue "rlm-again" nil t)
(autoload 'rlm-compare "rlm-again" nil t)
(autoload 'rlm-copy-answer "rlm-apply" nil t)
(autoload 'rlm-insert-answer "rlm-apply" nil t)
(autoload 'rlm-replace-source "rlm-apply" nil t)
(autoload 'rlm-discard-answer "rlm-apply" nil t)

(defcustom rlm-on-kill 'cancel
  "What becomes of a run when its answer buffer is killed."
  :type '(choice (const :tag "It is cancelled" cancel)
                 (const :tag "It goes on in the daemon" detach))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-display-action '(nil)
  "How the answer buffer is displayed, as ACTION of `display-buffer'."
  :type 'sexp
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-answer-functions nil
  "Functions called in the answer buffer, with the run, when it is complete."
  :type 'hook
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defvar-local rlm--answer-stream nil
  "The `rlm--stream' that the answer grows into.")

(defvar-local rlm--answer-text nil
  "The `rlm--text' that the stream shows, or nil.")

(defvar-local rlm--answer-tail nil
  "Marker after what follows the answer: notes, citations, receipt.")

(defvar-local rlm--citation-index 0
  "Number of the citation that was visited last, 0 for none.")

;;;; The answer buffer

(defvar rlm-answer-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-k") #'rlm-cancel)
    (define-key map (kbd "C-c C-y") #'rlm-confirm)
    (define-key map (kbd "C-c C-r") #'rlm-attach)
    (define-key map (kbd "C-c C-f") #'rlm-follow-up)
    (define-key map (kbd "C-c >") #'rlm-continue)
    (define-key map (kbd "C-c C-a") #'rlm-retry)
    (define-key map (kbd "C-c C-t") #'rlm-trace)
    (define-key map (kbd "C-c M-w") #'rlm-copy-answer)
    (define-key map (kbd "C-c M-y") #'rlm-replace-source)
    (define-key map (kbd "C-c C-d") #'rlm-discard-answer)
    (define-key map (kbd "C-c ?") #'rlm-answer-menu)
    map)
  "Keymap of `rlm-answer-mode'.")

(define-derived-mode rlm-answer-mode org-mode "RLM"
  "Mode of buffers that an answer streams into.
\\<rlm-answer-mode-map>\\[rlm-cancel] cancels the run, \\[next-error] goes to the next quoted place,
\\[org-open-at-point] to that of the citation at point, \\[rlm-follow-up] asks on.

\\{rlm-answer-mode-map}"
  (setq-local header-line-format '(:eval (rlm--header-shown)))
  (setq-local next-error-function #'rlm--next-citation)
  (setq-local org-return-follows-link t)
  (setq-local truncate-lines nil)
  (setq-local word-wrap t)
  (add-hook 'kill-buffer-hook #'rlm--answer-killed nil t))

(defun rlm--answer-display (run)
  "Make and display the answer buffer of RUN; return it."
  (let ((buffer (rlm--answer-make run)))
    (display-buffer buffer rlm-display-action)
    buffer))

(defun rlm--answer-make (run)
  "Return a new answer buffer for RUN."
  (let ((buffer (generate-new-buffer
                 (format "*rlm: %s*" (rlm--one-line (rlm-run-question run) 40)))))
    (with-current-buffer buffer
      (setq default-directory (expand-file-name "~/"))
      (rlm-answer-mode)
      (setq rlm--run run)
      (rlm--stay-with (rlm-run-socket run))
      (rlm--answer-begin)
      (goto-char (point-min)))
    (rlm--run-observe run (lambda (run event data)
                            (when (buffer-live-p buffer)
                              (with-current-buffer buffer
                                (rlm--answer-observe run event data)))))
    (rlm--ticker-start)
    buffer))

(defun rlm--answer-begin ()
  "Insert the head of the current answer buffer; open its stream."
  (let ((question (rlm-run-question rlm--run))
        (sources (rlm-run-sources rlm--run)))
    (insert "* " (rlm--org-plain (rlm--one-line question 100)) "\n")
    (when (string-match-p "\n\\|.\\{101\\}" (string-trim question))
      (insert "#+begin_quote\n"
              (mapconcat (lambda (line)
                           (rlm--org-harmless (rlm--org-plain line)))
                         (split-string (string-trim question) "\n") "\n")
              "\n#+end_quote\n"))
    (when sources
      (insert "Asked of " (rlm--org-plain (rlm--describe sources)) ".\n"))
    (insert "\n")
    (setq rlm--answer-stream (rlm--stream-open (current-buffer) (point)))))

(defun rlm--answer-observe (run event data)
  "Show EVENT of RUN with DATA in the current answer buffer."
  (pcase event
    ('delta (rlm--answer-delta (car data) (cdr data)))
    (_ (pcase event
         ('ended (rlm--answer-ended run))
         ((and 'fact (guard (equal "run_continued" (plist-get data :type))))
          (rlm--answer-anew))
         ('fact (when (and (rlm-run-asks run) (eq data (rlm-run-asks run)))
                  (message "rlm asks: %s  %s answers" (rlm--run-question-text run)
                           (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-confirm]")))))
       (force-mode-line-update))))

(defun rlm--answer-anew ()
  "Take the answer out of the current buffer: its run goes on."
  (let ((inhibit-read-only t)
        (beg (rlm--stream-beg rlm--answer-stream)))
    (rlm--stream-stop rlm--answer-stream)
    (save-restriction
      (widen)
      (delete-region beg (or rlm--answer-tail (rlm--stream-end rlm--answer-stream)))
      (setq rlm--answer-stream (rlm--stream-open (current-buffer) beg)
            rlm--answer-text nil
            rlm--answer-tail nil))))

(defun rlm--answer-delta (text piece)
  "Show that TEXT has grown by PIECE, or has changed if that is nil."
  (setq rlm--answer-text (rlm--stream-show rlm--answer-stream rlm--answer-text text piece)))

(defun rlm--stream-show (stream shown text piece)
  "Have STREAM, which shows SHOWN, follow TEXT; return what it shows now.
TEXT, an `rlm--text', has grown by PIECE, or has changed if that is
nil.  Only what root models write is shown; of several texts the newest."
  (cond ((not (eq (rlm--text-kind text) 'root)) shown)
        ((and piece (eq text shown))
         (rlm--stream-write stream piece)
         text)
        (t (rlm--stream-reset stream)
           (rlm--stream-write stream (rlm--text-string text))
           text)))

(defun rlm--answer-ended (run)
  "Complete the current answer buffer: RUN is over."
  (let ((answer (or (rlm-run-answer run) "")))
    (unless (or (string-empty-p answer)
                (rlm--answer-shown-p run answer))
      (rlm--stream-reset rlm--answer-stream)
      (rlm--stream-write rlm--answer-stream answer))
    (let ((buffer (current-buffer)))
      (rlm--stream-close rlm--answer-stream
                         (lambda ()
                           (when (buffer-live-p buffer)
                             (with-current-buffer buffer
                               (rlm--answer-complete run))))))))

(defun rlm--answer-shown-p (run answer)
  "Return non-nil if ANSWER of RUN is what the stream shows already."
  (and rlm--answer-text
       (equal (rlm-run-answer-stream run) (rlm--text-name rlm--answer-text))
       (not (rlm--text-torn rlm--answer-text))
       (string= answer (rlm--text-string rlm--answer-text))))

(defun rlm--answer-complete (run)
  "Insert what follows the answer of RUN: notes, citations, receipt."
  (let ((inhibit-read-only t)
        (end (rlm--stream-end rlm--answer-stream)))
    (save-excursion
      (save-restriction
        (widen)
        (goto-char end)
        (dolist (line (append (rlm--verdict-lines run)
                              (rlm--note-lines run)
                              (rlm--citation-lines run)
                              (rlm--unread-lines run)
                              (rlm--receipt-lines run)))
          (unless (and (string-empty-p line) (looking-back "\n\n" (- (point) 2)))
            (insert line "\n")))
        (setq rlm--answer-tail (point-marker)))))
  (setq rlm--citation-index 0)
  (when (rlm-run-citations run)
    (setq next-error-last-buffer (current-buffer)))
  (rlm--run-guarded 'rlm-answer-functions run))

(defun rlm--paragraph (label text)
  "Return lines that say TEXT under LABEL, or nil if there is no TEXT."
  (when (and text (not (string-empty-p text)))
    (list "" (concat "*" label "* " (rlm--org-plain (rlm--one-line text 1000))))))

(defun rlm--verdict-lines (run)
  "Return lines that say how RUN ended, if not by answering."
  (let ((why (rlm-run-why run))
        (error (rlm-run-error run)))
    (pcase (rlm-run-state run)
      ('failed (rlm--paragraph "Failed:" (if error (rlm-error-text error) why)))
      ('cancelled (rlm--paragraph "Cancelled:" (or why "no reason was given")))
      ('interrupted (rlm--paragraph "Interrupted:" why))
      (_ (pcase (rlm-run-outcome run)
           ("partial" (rlm--paragraph "Partial answer:" why))
           ("none" (rlm--paragraph "No answer:" why)))))))

(defun rlm--note-lines (run)
  "Return lines with the notes of RUN that neither its answer nor its end tells."
  (let ((why (string-trim-right (or (rlm-run-why run) "") "[.]+")))
    (mapcan (lambda (note)
              (unless (or (rlm--says-p (or (rlm-run-answer run) "") note)
                          (and (not (string-empty-p why)) (rlm--says-p note why)))
                (rlm--paragraph "Note:" note)))
            (reverse (rlm-run-notes run)))))

(defun rlm--says-p (text words)
  "Return non-nil if TEXT holds WORDS, however their lines are broken."
  (string-match-p (mapconcat #'regexp-quote (split-string words) "[[:space:]]+") text))

(defun rlm--citation-lines (run)
  "Return lines with the citations of RUN as links."
  (when-let ((citations (rlm-run-citations run)))
    (append
     '("" "** Citations")
     (mapcar
      (lambda (citation)
        (format "%d. [[rlm:%s::%d][%s]] “%s”"
                (plist-get citation :number) (rlm-run-id run)
                (plist-get citation :number)
                (replace-regexp-in-string "[][]" "|" (rlm--citation-label run citation))
                (rlm--org-plain (rlm--one-line (plist-get citation :quote) 160))))
      citations))))

(defconst rlm--unread-listed 5
  "How many of the stretches that nobody read are listed.")

(defun rlm--unread-lines (run)
  "Return lines with the stretches that no model read in RUN, as links."
  (let* ((receipt (rlm-run-receipt run))
         (spans (append (plist-get receipt :unread) nil))
         (listed (seq-take spans rlm--unread-listed))
         (more (- (or (plist-get receipt :unread_stretches) (length spans))
                  (length listed))))
    (when (and listed (< 0 (or (plist-get receipt :chars_read) 0)))
      (list ""
            (concat
             "Not read by a model: "
             (string-join
              (seq-map-indexed
               (lambda (span index)
                 (format "[[rlm:%s::unread-%d][%s]]" (rlm-run-id run) (1+ index)
                         (replace-regexp-in-string
                          "[][]" "|" (rlm--span-label run span))))
               listed)
              ", ")
             (if (> more 0) (format " and %d more." more) "."))))))

(defun rlm--receipt-lines (run)
  "Return lines with the receipt of RUN."
  (when-let ((summary (plist-get (rlm-run-receipt run) :summary)))
    (list "" (rlm--org-harmless (rlm--org-plain (rlm--one-line summary 1000))))))

(defun rlm--answer-killed ()
  "The current answer buffer is being killed: let its run go."
  (when rlm--answer-stream
    (rlm--stream-stop rlm--answer-stream))
  (when rlm--run
    (rlm--guarded #'rlm--session-forget rlm--run))
  (when (and rlm--run (rlm-run-live-p rlm--run))
    (let ((run rlm--run))
      (if (and (eq rlm-on-kill 'cancel)
               (memq (rlm-run-link run) '(nil attached asking)))
          (rlm--guarded #'rlm-run-cancel run "its answer buffer was killed")
        (rlm--guarded #'rlm--run-leave run)))))

(defun rlm--session-forget (run)
  "End the session of RUN if it was made for answer buffers and this is the last."
  (let ((session (plist-get (rlm-run-params run) :session)))
    (when (and session
               (rlm-run-session-own run)
               (not (rlm-run-live-p run))
               (rlm--client-live-p (rlm--client (rlm-run-socket run)))
               (not (seq-find (lambda (buffer)
                                (and (not (eq buffer (current-buffer)))
                                     (when-let ((other (buffer-local-value 'rlm--run buffer)))
                                       (equal session (plist-get (rlm-run-params other)
                                                                 :session)))))
                              (buffer-list))))
      (rlm-call "session/drop" (list :name session)
                :socket (rlm-run-socket run) :failure #'ignore))))

(defun rlm--run-leave (run)
  "Stop following RUN; it goes on in the daemon."
  (when (memq (rlm-run-link run) '(attached asking))
    (rlm-call "run/detach" (list :run_id (rlm-run-id run))
              :socket (rlm-run-socket run) :failure #'ignore))
  (setf (rlm-run-link run) 'left))

;;;; The quoted places

(defun rlm--next-citation (&optional count reset)
  "Go to the COUNTth next quoted place; from the first one with RESET.
This is the `next-error-function' of answer buffers."
  (let* ((citations (and rlm--run (rlm-run-citations rlm--run)))
         (index (+ (if reset 0 rlm--citation-index) (or count 1))))
    (cond ((null citations) (user-error "This answer cites nothing"))
          ((< index 1) (user-error "This is the first citation"))
          ((> index (length citations)) (user-error "This is the last citation")))
    (setq rlm--citation-index index)
    (let ((citation (nth (1- index) citations)))
      (rlm--citation-point citation)
      (let ((told (rlm--citation-visit rlm--run citation)))
        (message "%s" told)
        ;; `next-error' has a message of its own yet to come.
        (run-at-time 0 nil (lambda ()
                             (when (string-match-p "locus from" (or (current-message) ""))
                               (message "%s" told))))))))

(defun rlm--citation-point (citation)
  "Put point of the current answer buffer, in its windows too, at CITATION."
  (save-restriction
    (widen)
    (goto-char (point-min))
    (when (search-forward (format "[[rlm:%s::%d]" (rlm-run-id rlm--run)
                                  (plist-get citation :number))
                          nil t)
      (beginning-of-line)
      (dolist (window (get-buffer-window-list nil nil t))
        (set-window-point window (point))))))

(provide 'rlm-answer)
;;; rlm-answer.el ends here
