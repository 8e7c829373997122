;;; rlm.el --- Ask questions of texts of any size -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers

;; Author: The rlmd maintainers
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1"))
;; Keywords: tools, convenience, hypermedia
;; URL: https://github.com/rlmd/rlmd
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; M-x rlm-query asks a question of the region or the buffer, however
;; large: the text is not put into a model's prompt, but becomes a
;; variable that a model searches and cuts up by program.  The daemon
;; rlmd does the work; it is started if it does not run.
;;
;; The answer streams into an Org buffer.  What it rests on is quoted
;; there, and each quote is a link into the text:
;;
;;   M-g n, M-g p   next and previous quoted place (`next-error')
;;   C-c C-o        the place of the citation at point
;;   C-c C-k        cancel the run
;;   C-c C-r        follow the run again when the connection was lost
;;
;; From Lisp:
;;
;;   (rlm-query "Who wrote this?" (current-buffer)
;;              :callback (lambda (run) (message "%s" (rlm-run-answer run))))
;;
;; The manual is in Info: (info "(rlm)").

;;; Code:

(require 'rlm-rpc)
(require 'rlm-run)
(require 'rlm-context)
(require 'rlm-stream)
(require 'rlm-cite)
(require 'org)

(defcustom rlm-strategy "auto"
  "How questions are answered.
\"auto\" lets the daemon choose by the size of the text."
  :type '(choice (const :tag "Let the daemon choose" "auto")
                 (const :tag "One completion over the whole text" "direct")
                 (const :tag "A model that writes programs" "rlm")
                 (const :tag "The question to each piece, then combine" "map")
                 (const :tag "Search and quote, no model" "quote"))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

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

(defvar rlm-query-history nil
  "History of questions.")

(defvar rlm--last-sources nil
  "The texts that were asked about last.")

(defvar-local rlm--run nil
  "The run whose answer this buffer shows.")

(defvar-local rlm--answer-stream nil
  "The `rlm--stream' that the answer grows into.")

(defvar-local rlm--answer-text nil
  "The `rlm--text' that the stream shows, or nil.")

(defvar-local rlm--citation-index 0
  "Number of the citation that was visited last, 0 for none.")

;;;; Asking

;;;###autoload
(cl-defun rlm-query (question source &key callback display)
  "Ask QUESTION of SOURCE; return the run, an `rlm-run', at once.
SOURCE is a buffer (its accessible part), a string, or a list
\(BUFFER START END).  CALLBACK is called with the run when it is
over, however it ended; see `rlm-run-state', `rlm-run-answer',
`rlm-run-citations' and `rlm-run-error'.  With DISPLAY the answer
streams into a buffer of its own, which is displayed.

Interactively the source is the region if it is active, else the
buffer; in an answer buffer the text that the answer is about; and
with a prefix argument the text that was asked about last."
  (interactive (append (rlm--read-query current-prefix-arg) '(:display t)))
  (when (string-blank-p question)
    (user-error "There is no question"))
  (let* ((sources (if (rlm-source-p (car-safe source))
                      source
                    (list (rlm-source-from source))))
         (run (rlm--run-make :id (rlm--new-id)
                             :socket (rlm-socket-path)
                             :question question
                             :sources sources
                             :begin #'rlm--begin
                             :params (list :strategy rlm-strategy))))
    (when callback
      (rlm--run-observe run (lambda (run event _data)
                              (when (eq event 'ended)
                                (funcall callback run)))))
    (rlm--begin run)
    (setq rlm--last-sources sources)
    (when display
      (rlm--answer-display run))
    run))

(defun rlm--read-query (again)
  "Return (QUESTION SOURCE) as the user wants; with AGAIN of the last text."
  (let ((source (rlm--dwim-source again)))
    (list (read-string (format "Ask of %s: " (rlm--describe source))
                       nil 'rlm-query-history)
          source)))

(defun rlm--dwim-source (again)
  "Return the sources that the user means; with AGAIN the last ones."
  (cond
   (again (rlm--sources-again
           (or rlm--last-sources (user-error "Nothing was asked about yet"))))
   ((use-region-p)
    (list (rlm-source-from (current-buffer) (region-beginning) (region-end))))
   (rlm--run (rlm--sources-again (rlm-run-sources rlm--run)))
   (t (list (rlm-source-from (current-buffer))))))

(defun rlm--sources-again (sources)
  "Return SOURCES as their texts are now."
  (mapcar (lambda (source)
            (if (buffer-live-p (rlm-source-buffer source))
                (rlm--with-source
                 source (lambda (start end)
                          (rlm-source-from (current-buffer) start end)))
              (or (and (or (rlm-source-name source) (rlm-source-text source))
                       source)
                  (user-error "The text is gone with its buffer"))))
          sources))

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

(defun rlm--begin (run)
  "Take the sources of RUN to the daemon, then ask.
A daemon that is not there and cannot be started is a `user-error'."
  (let ((client (rlm--client (rlm-run-socket run))))
    (setf (rlm-run-state run) 'loading
          (rlm-run-link run) nil)
    (unless (rlm--client-live-p client)
      (mapc #'rlm--source-snapshot (rlm-run-sources run)))
    (rlm--when-ready client
                     (lambda () (rlm--load-then-ask run (rlm-run-sources run) nil nil))
                     (lambda (error) (rlm--run-refused run error)))))

(defun rlm--load-then-ask (run sources names again)
  "Have SOURCES of RUN loaded one after the other, then ask.
NAMES are the contexts that are there, last first.  AGAIN is
non-nil if the daemon had forgotten one and this is the second try."
  (if (null sources)
      (progn
        (setf (rlm-run-state run) 'new)
        (rlm--run-start run (reverse names)
                        (unless again
                          (lambda ()
                            (dolist (source (rlm-run-sources run))
                              (setf (rlm-source-name source) nil))
                            (rlm--load-then-ask run (rlm-run-sources run) nil t)))))
    (rlm--source-load (car sources) (rlm-run-socket run)
                      (lambda (name)
                        (rlm--load-then-ask run (cdr sources) (cons name names) again))
                      (lambda (error) (rlm--run-refused run error)))))

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
        (mapc (lambda (line) (insert line "\n"))
              (append (rlm--verdict-lines run)
                      (rlm--note-lines run)
                      (rlm--citation-lines run)
                      (rlm--receipt-lines run))))))
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
      ('cancelled (rlm--paragraph "Cancelled." (or why " ")))
      ('interrupted (rlm--paragraph "Interrupted:" why))
      (_ (pcase (rlm-run-outcome run)
           ("partial" (rlm--paragraph "Partial answer:" why))
           ("none" (rlm--paragraph "No answer:" why)))))))

(defun rlm--note-lines (run)
  "Return lines with the notes of RUN."
  (mapcan (lambda (note) (rlm--paragraph "Note:" note))
          (reverse (rlm-run-notes run))))

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
    (_ (if (eq state 'loading) "taking the text to rlmd" (symbol-name state)))))

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
         (substitute-command-keys "\\[next-error] shows what it quotes"))))

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

;;;; Commands on runs

(defun rlm--live-runs ()
  "Return the runs that are not over, newest first."
  (let (runs)
    (maphash (lambda (_id run)
               (when (rlm-run-live-p run) (push run runs)))
             rlm--runs)
    (sort runs (lambda (a b) (> (rlm-run-created a) (rlm-run-created b))))))

(defun rlm--read-run (prompt runs)
  "Read one of RUNS with PROMPT; if there is one only, return that."
  (pcase runs
    ('nil (user-error "No run is going"))
    (`(,run) run)
    (_ (let ((choices (mapcar (lambda (run)
                                (cons (format "%s  %s" (substring (rlm-run-id run) 0 8)
                                              (rlm--one-line (rlm-run-question run) 60))
                                      run))
                              runs)))
         (cdr (assoc (completing-read prompt choices nil t) choices))))))

;;;###autoload
(defun rlm-cancel (run)
  "Cancel RUN: that of the current answer buffer, else one that is going.
What it found so far stays."
  (interactive (list (or rlm--run (rlm--read-run "Cancel: " (rlm--live-runs)))))
  (if (rlm-run-live-p run)
      (progn (rlm-run-cancel run)
             (message "Cancelling…"))
    (user-error "This run is over")))

(defun rlm-attach (run)
  "Follow RUN, of the current answer buffer, again.
The connection to the daemon is made anew if need be; what
happened meanwhile is caught up with."
  (interactive (list (or rlm--run (user-error "Not in an answer buffer"))))
  (if (memq (rlm-run-state run) '(ended failed cancelled))
      (user-error "This run is over")
    (rlm-run-attach run)
    (rlm--ticker-start)))

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
      (rlm--citation-visit rlm--run citation))))

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

(provide 'rlm)
;;; rlm.el ends here
