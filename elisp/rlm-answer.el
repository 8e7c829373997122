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

(require 'rlm-run)
(require 'rlm-context)
(require 'rlm-stream)
(require 'rlm-cite)
(require 'org)

(declare-function rlm-cancel "rlm" (run))
(declare-function rlm-attach "rlm" (run))

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

(defvar-local rlm--run nil
  "The run whose answer this buffer shows.")

(defvar-local rlm--answer-stream nil
  "The `rlm--stream' that the answer grows into.")

(defvar-local rlm--answer-text nil
  "The `rlm--text' that the stream shows, or nil.")

(defvar-local rlm--citation-index 0
  "Number of the citation that was visited last, 0 for none.")

(defun rlm--describe (sources)
  "Return what SOURCES are, for a person."
  (mapconcat (lambda (source)
               (format "%s (%s)" (rlm-source-label source)
                       (rlm--count (rlm-source-chars source) "character")))
             sources ", "))

(defun rlm--count (number noun)
  "Return NUMBER of NOUN, with commas and an s where English wants them."
  (let ((digits (number-to-string number)))
    (while (string-match "\\([0-9]\\)\\([0-9]\\{3\\}\\)\\(?:,\\|\\'\\)" digits)
      (setq digits (replace-match "\\1,\\2" nil nil digits nil)))
    (format "%s %s%s" digits noun (if (= number 1) "" "s"))))

;;;; The answer buffer

(defvar rlm-answer-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-k") #'rlm-cancel)
    (define-key map (kbd "C-c C-r") #'rlm-attach)
    map)
  "Keymap of `rlm-answer-mode'.")

(define-derived-mode rlm-answer-mode org-mode "RLM"
  "Mode of buffers that an answer streams into.
\\<rlm-answer-mode-map>\\[rlm-cancel] cancels the run, \\[next-error] goes to the next quoted place,
\\[org-open-at-point] to that of the citation at point.

\\{rlm-answer-mode-map}"
  (setq-local header-line-format '(:eval (rlm--header-line)))
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
    ('ended (rlm--answer-ended run)))
  (force-mode-line-update))

(defun rlm--answer-delta (text piece)
  "Show that TEXT has grown by PIECE, or has changed if that is nil.
Only what root models write is shown; of several texts the newest."
  (when (eq (rlm--text-kind text) 'root)
    (if (and piece (eq text rlm--answer-text))
        (rlm--stream-write rlm--answer-stream piece)
      (setq rlm--answer-text text)
      (rlm--stream-reset rlm--answer-stream)
      (rlm--stream-write rlm--answer-stream (rlm--text-string text)))))

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
                              (rlm--receipt-lines run)))
          (unless (and (string-empty-p line) (looking-back "\n\n" (- (point) 2)))
            (insert line "\n"))))))
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
  "Return lines with the notes of RUN that its answer does not hold."
  (let* ((words (lambda (text) (string-join (split-string (or text "")) " ")))
         (said (funcall words (rlm-run-answer run))))
    (mapcan (lambda (note)
              (unless (string-search (funcall words note) said)
                (rlm--paragraph "Note:" note)))
            (reverse (rlm-run-notes run)))))

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

(defun rlm--receipt-lines (run)
  "Return lines with the receipt of RUN."
  (when-let ((summary (plist-get (rlm-run-receipt run) :summary)))
    (list "" (rlm--org-harmless (rlm--org-plain (rlm--one-line summary 1000))))))

(defun rlm--answer-killed ()
  "The current answer buffer is being killed: let its run go."
  (when rlm--answer-stream
    (rlm--stream-stop rlm--answer-stream))
  (when (and rlm--run (rlm-run-live-p rlm--run))
    (let ((run rlm--run))
      (if (and (eq rlm-on-kill 'cancel)
               (memq (rlm-run-link run) '(attached asking)))
          (rlm--guarded #'rlm-run-cancel run "its answer buffer was killed")
        (rlm--guarded #'rlm--run-leave run)))))

(defun rlm--run-leave (run)
  "Stop following RUN; it goes on in the daemon."
  (when (memq (rlm-run-link run) '(attached asking))
    (rlm-call "run/detach" (list :run_id (rlm-run-id run))
              :socket (rlm-run-socket run) :failure #'ignore))
  (setf (rlm-run-link run) 'left))

;;;; Progress

(defun rlm--header-line ()
  "Return the header line of the current answer buffer."
  (if (null rlm--run)
      ""
    (let ((parts (delq nil (append (list (rlm--header-state rlm--run))
                                   (rlm--header-progress rlm--run)
                                   (list (rlm--header-keys rlm--run))))))
      ;; A % would be taken for a construct of the mode line.
      (concat " " (replace-regexp-in-string
                   "%" "%%" (mapconcat #'identity parts " · "))))))

(defun rlm--header-state (run)
  "Return what RUN is doing, as text with a face."
  (let ((link (rlm-run-link run))
        (state (rlm-run-state run)))
    (cond
     ((eq link 'lost) (propertize "connection lost" 'face 'error))
     ((memq state '(failed interrupted))
      (propertize (symbol-name state) 'face 'error))
     ((eq state 'cancelled) (propertize "cancelled" 'face 'warning))
     ((eq state 'ended)
      (propertize (pcase (rlm-run-outcome run)
                    ("answered" "done") (other (or other "done")))
                  'face 'success))
     (t (propertize (or (rlm-run-activity run)
                        (rlm--header-waiting run state))
                    'face 'mode-line-emphasis)))))

(defun rlm--header-waiting (run state)
  "Return what RUN in STATE waits for."
  (pcase (rlm--client-state (rlm--client (rlm-run-socket run)))
    ('starting "starting rlmd")
    ('connecting "connecting to rlmd")
    (_ (pcase state
         ('loading "taking the text to rlmd")
         ('new "asking")
         (_ (symbol-name state))))))

(defun rlm--header-progress (run)
  "Return a list of texts, or nils, that tell how far RUN is."
  (list
   (let ((strategy (rlm-run-strategy run)))
     (unless (equal strategy "auto") strategy))
   (when (> (rlm-run-turn run) 0)
     (if (rlm-run-turn-limit run)
         (format "turn %d/%d" (rlm-run-turn run) (rlm-run-turn-limit run))
       (format "turn %d" (rlm-run-turn run))))
   (when (> (rlm-run-pieces run) 0)
     (concat (format "%d/%d pieces" (rlm-run-pieces-done run) (rlm-run-pieces run))
             (when (> (rlm-run-pieces-cached run) 0)
               (format ", %d cached" (rlm-run-pieces-cached run)))
             (when (> (rlm-run-pieces-failed run) 0)
               (propertize (format ", %d failed" (rlm-run-pieces-failed run))
                           'face 'warning))))
   (when (rlm-run-hosts run)
     (mapconcat #'identity (rlm-run-hosts run) " "))
   (rlm--duration (rlm-run-elapsed run))))

(defun rlm--duration (seconds)
  "Return SECONDS as a person says it."
  (let ((seconds (max 0 (floor seconds))))
    (if (< seconds 60)
        (format "%d s" seconds)
      (format "%d:%02d min" (/ seconds 60) (% seconds 60)))))

(defun rlm--header-keys (run)
  "Return what keys are of use for RUN now."
  (cond ((or (eq (rlm-run-link run) 'lost)
             (eq (rlm-run-state run) 'interrupted))
         (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-attach] follows it again"))
        ((rlm-run-live-p run)
         (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-cancel] cancels"))
        ((rlm-run-citations run)
         ;; `substitute-command-keys' would name the oldest binding.
         (format "%s shows what it quotes"
                 (if (eq (key-binding (kbd "M-g n")) 'next-error)
                     "M-g n"
                   (substitute-command-keys "\\[next-error]"))))))

(defvar rlm--ticker nil
  "Timer that lets the header lines count seconds while runs are going.")

(defun rlm--ticker-start ()
  "See to it that header lines count seconds."
  (unless rlm--ticker
    (setq rlm--ticker (run-at-time 1 1 #'rlm--tick))))

(defun rlm--tick ()
  "Count a second in the header lines; stop when no run is going."
  (let ((going nil))
    (dolist (buffer (buffer-list))
      (when-let ((run (buffer-local-value 'rlm--run buffer)))
        (when (rlm-run-live-p run)
          (setq going t)
          (when (get-buffer-window buffer t)
            (with-current-buffer buffer
              (force-mode-line-update))))))
    (unless going
      (cancel-timer rlm--ticker)
      (setq rlm--ticker nil))))

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
