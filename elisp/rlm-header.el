;;; rlm-header.el --- How far a run is, in one line -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The header line of an answer buffer: what its run is doing, how far
;; it is, what it has used, and buttons for what can be done now.

;;; Code:

(require 'rlm-run)

(declare-function rlm-cancel "rlm-ask" (run))
(declare-function rlm-attach "rlm-ask" (run))
(declare-function rlm-trace "rlm-trace" (run))
(declare-function rlm-confirm "rlm-ask" (run))
(declare-function rlm-follow-up "rlm-again" (run))
(declare-function rlm-continue "rlm-again" (run &optional more))
(declare-function rlm-answer-menu "rlm-transient" ())
(autoload 'rlm-list-runs "rlm-status" nil t)

(defvar rlm-answer-mode-map)

(defvar-local rlm--run nil
  "The run whose answer this buffer shows.")

(defvar-local rlm--header-known nil
  "Cons of what the header line was made of, and the line.")

(defun rlm--header-shown ()
  "Return the header line, made anew only where its run has changed.
Emacs asks for it at each redisplay, twenty times a second and more
while an answer grows; looking up keys alone took a sixth of all time."
  (let ((from (and rlm--run
                   (list (rlm--header-room) (rlm-run-next rlm--run) (rlm-run-state rlm--run) (rlm-run-link rlm--run)
                         (rlm-run-activity rlm--run) (rlm-run-queue rlm--run) (floor (rlm-run-elapsed rlm--run))
                         (rlm--client-state (rlm--client (rlm-run-socket rlm--run)))))))
    (unless (and rlm--header-known (equal from (car rlm--header-known)))
      (setq rlm--header-known (cons from (rlm--header-line (rlm--header-room)))))
    (cdr rlm--header-known)))

(defun rlm--header-room ()
  "Return how many columns a header line has."
  (window-width))

(defun rlm--header-line (&optional room)
  "Return the header line of the current answer buffer, for ROOM columns.
Where these are too few, the buttons go first, for what they do has keys
too, and then what tells how far the run is."
  (if (null rlm--run)
      ""
    (let* ((state (list (rlm--header-state rlm--run)))
           (keys (list (rlm--header-keys rlm--run)))
           (progress (rlm--header-progress rlm--run))
           (buttons (rlm--header-buttons rlm--run))
           (lines (mapcar #'rlm--header-joined
                          (list (append state progress buttons keys)
                                (append state progress (list (car buttons)) keys)
                                (append state progress keys)
                                (append state (rlm--header-essential rlm--run) keys)
                                (append state keys)))))
      ;; A % would be taken for a construct of the mode line.
      (replace-regexp-in-string
       "%" "%%" (or (seq-find (lambda (line) (or (null room) (<= (string-width line) room))) lines)
                    (car (last lines)))))))

(defun rlm--header-joined (parts)
  "Return PARTS, texts or nils, as one line."
  (concat " " (string-join (delq nil (copy-sequence parts)) " · ")))

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
     ((rlm-run-asks run)
      (propertize (concat "asks: " (rlm--run-question-text run)) 'face 'warning))
     ((rlm-run-waits run)
      (propertize (rlm--run-waits-text run) 'face 'warning))
     (t (propertize (or (rlm-run-queue run)
                        (rlm-run-activity run)
                        (rlm--header-waiting run state))
                    'face 'mode-line-emphasis)))))

(defun rlm--run-question-text (run)
  "Return what RUN asks, as it waits for a yes."
  (let* ((asks (rlm-run-asks run))
         (estimate (plist-get asks :estimate))
         (seconds (plist-get estimate :seconds))
         (money (or (plist-get estimate :money) 0)))
    (if (string-empty-p (or (plist-get asks :why) ""))
        (concat (rlm--count (or (plist-get estimate :requests) 0) "request")
                (when seconds (concat ", about " (rlm--duration seconds)))
                (when (> money 0) (concat ", up to " (rlm--dollars money)))
                "; go on?")
      (rlm--one-line (plist-get asks :why) 200))))

(defun rlm--run-waits-text (run)
  "Return why RUN waits for a host, and until when."
  (let* ((waits (rlm-run-waits run))
         (until (plist-get waits :until)))
    (concat "waits: " (string-trim-right (rlm--one-line (plist-get waits :why) 160) "[.]+")
            (when until (format-time-string "; until %H:%M" until)))))

(defun rlm--header-waiting (run state)
  "Return what RUN in STATE waits for."
  (pcase (rlm--client-state (rlm--client (rlm-run-socket run)))
    ('starting (if-let ((host (file-remote-p (rlm-run-socket run) 'host)))
                   (format "reaching %s" host)
                 "starting rlmd"))
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
   (rlm--header-pieces run)
   (when (rlm-run-hosts run)
     (mapconcat #'identity (rlm-run-hosts run) " "))
   (rlm--header-tokens run)
   (rlm--header-cost run)
   (rlm--duration (rlm-run-elapsed run))
   (rlm--header-left run)))

(defun rlm--header-essential (run)
  "Return a list of texts, or nils, that tell the least of how far RUN is."
  (list (rlm--header-pieces run) (rlm--header-cost run)
        (rlm--duration (rlm-run-elapsed run)) (rlm--header-left run)))

(defun rlm--header-left (run)
  "Return for how long RUN will still go on, as far as is known, or nil."
  (when-let ((left (rlm--run-left run)))
    (format "%s left" (rlm--duration left))))

(defun rlm--header-pieces (run)
  "Return how many of the pieces of RUN are done, or nil if it has none."
  (when (> (rlm-run-pieces run) 0)
    (concat (format "%d/%d pieces" (rlm-run-pieces-done run) (rlm-run-pieces run))
            (when (> (rlm-run-pieces-cached run) 0)
              (format ", %d cached" (rlm-run-pieces-cached run)))
            (when (> (rlm-run-pieces-failed run) 0)
              (propertize (format ", %d failed" (rlm-run-pieces-failed run))
                          'face 'warning)))))

(defun rlm--header-cost (run)
  "Return what RUN has cost in money and energy, or nil.
What the energy costs stands in parentheses after it."
  (let ((parts (delq nil (list (when (> (rlm-run-money run) 0)
                                 (rlm--dollars (rlm-run-money run)))
                               (when (>= (rlm-run-energy run) 0.05)
                                 (format "%.1f Wh" (rlm-run-energy run)))
                               (when (> (rlm-run-energy-cost run) 0)
                                 (format "(%s)" (rlm--dollars (rlm-run-energy-cost run))))))))
    (when parts
      (string-join parts " "))))

(defun rlm--dollars (money)
  "Return MONEY, dollars, for a person."
  (format (if (< money 0.1) "$%.4f" "$%.2f") money))

(defun rlm--run-left (run)
  "Return about how many seconds the pieces of RUN will still take, or nil."
  (let ((told (- (rlm-run-pieces-done run) (rlm-run-pieces-cached run)))
        (to-come (- (rlm-run-pieces run) (rlm-run-pieces-done run))))
    (when (and (rlm-run-live-p run) (rlm-run-pieces-since run) (> told 2) (> to-come 0))
      (* to-come (/ (- (float-time) (rlm-run-pieces-since run)) told)))))

(defun rlm--header-tokens (run)
  "Return how many tokens RUN has sent and got, or nil."
  (let ((sent (rlm-run-tokens-sent run))
        (got (rlm-run-tokens-got run)))
    (when (> (+ sent got) 0)
      (format "%s↑ %s↓" (rlm--short-number sent) (rlm--short-number got)))))

(defun rlm--short-number (number)
  "Return NUMBER in three digits or so."
  (cond ((< number 1000) (number-to-string number))
        ((< number 100000) (format "%.1fk" (/ number 1000.0)))
        ((< number 1000000) (format "%dk" (/ number 1000)))
        (t (format "%.1fM" (/ number 1000000.0)))))

(defun rlm--header-buttons (run)
  "Return texts that a mouse can press, for what can be done with RUN now."
  (mapcar (lambda (button)
            (rlm--header-button (car button) (cdr button)))
          (append (when (rlm-run-asks run)
                    '(("[answer it]" . rlm-confirm)))
                  (cond ((rlm-run-live-p run) '(("[cancel]" . rlm-cancel)))
                        ((rlm--run-limit run) '(("[go on]" . rlm-continue)))
                        ((eq (rlm-run-state run) 'ended) '(("[ask on]" . rlm-follow-up))))
                  '(("[trace]" . rlm-trace) ("[more]" . rlm-answer-menu)))))

(defun rlm--header-button (label command)
  "Return LABEL such that a click on it runs COMMAND."
  (let ((map (make-sparse-keymap)))
    (define-key map [header-line mouse-1]
      (lambda (event)
        (interactive "e")
        (with-selected-window (posn-window (event-start event))
          (call-interactively command))))
    (propertize label 'face 'link 'mouse-face 'highlight 'local-map map
                'help-echo (format "mouse-1: %s" command))))

(defun rlm--header-keys (run)
  "Return what keys are of use for RUN now."
  (cond ((not (derived-mode-p 'rlm-answer-mode))
         "? helps")
        ((or (eq (rlm-run-link run) 'lost)
             (eq (rlm-run-state run) 'interrupted))
         (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-attach] follows it again"))
        ((rlm-run-asks run)
         (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-confirm] answers"))
        ((rlm-run-live-p run)
         (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-cancel] cancels"))
        ((rlm--run-limit run)
         (substitute-command-keys "\\<rlm-answer-mode-map>\\[rlm-continue] goes on"))
        ((rlm-run-citations run)
         ;; `substitute-command-keys' would name the oldest binding.
         (format "%s shows what it quotes"
                 (if (eq (key-binding (kbd "M-g n")) 'next-error)
                     "M-g n"
                   (substitute-command-keys "\\[next-error]"))))))

(defconst rlm--queue-patience 3
  "Seconds without a word from a model after which the hosts are asked why.")

(defun rlm--queue-look (run)
  "See what RUN waits for, if its model has not said a word for a while."
  (let ((text (cdar (rlm-run-texts run)))
        (socket (rlm-run-socket run)))
    (if (and (equal (rlm-run-activity run) "thinking")
             (or (null text) (rlm--text-closed text) (= 0 (rlm--text-length text)))
             (> (- (float-time) (rlm-run-heard run)) rlm--queue-patience)
             (rlm--client-live-p (rlm--client socket)))
        (rlm-call "host/list" nil :socket socket
                  :success (lambda (result)
                             (setf (rlm-run-queue run) (rlm--queue-text result)))
                  :failure #'ignore)
      (setf (rlm-run-queue run) nil))))

(defun rlm--queue-text (result)
  "Return what RESULT, of host/list, says of the queue and who works."
  (let ((queued (or (plist-get result :queued) 0))
        (busy (seq-filter (lambda (host) (> (plist-get host :slots_used) 0))
                          (plist-get result :hosts)))
        (drain (plist-get result :drain))
        (names (lambda (hosts) (mapconcat (lambda (host) (plist-get host :name)) hosts " "))))
    (cond ((> queued 0)
           (concat (format "%d queued" queued)
                   (when (and drain (> drain 1))
                     (concat ", about " (rlm--duration drain)))))
          ((seq-some #'rlm--host-loads-p busy)
           (format "loading on %s" (funcall names (seq-filter #'rlm--host-loads-p busy))))
          (busy (format "waiting for %s" (funcall names busy))))))

(defun rlm--host-loads-p (host)
  "Return non-nil if HOST brings a model into its memory for what it was asked.
A daemon of 0.1.0 does not tell; of an Ollama that has nothing in its
memory it is known all the same."
  (or (plist-get host :loading)
      (and (equal "ollama" (plist-get host :provider))
           (not (plist-member host :loading))
           (seq-empty-p (plist-get host :resident)))))

;;;; In every window

(defcustom rlm-mode-line t
  "Whether the mode line tells how many runs are going, while there are any."
  :type 'boolean
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defvar rlm--mode-line ""
  "What the mode line says of the runs that are going.")
(put 'rlm--mode-line 'risky-local-variable t)

(defconst rlm--mode-line-map
  (let ((map (make-sparse-keymap)))
    (define-key map [mode-line mouse-1] #'rlm-list-runs)
    map)
  "Keymap of what the mode line says of the runs that are going.")

(defun rlm--mode-line-update ()
  "Let the mode line say how many runs are going, and how many of them ask."
  (let* ((runs (seq-filter (lambda (run)
                             (and (rlm-run-live-p run) (rlm-run-link run)
                                  (not (eq 'left (rlm-run-link run)))))
                           (hash-table-values rlm--runs)))
         (asking (seq-count #'rlm-run-asks runs))
         (said (if (and rlm-mode-line runs)
                   (propertize (format " rlm:%d%s" (length runs) (if (> asking 0) "?" ""))
                               'face (if (> asking 0) 'warning 'mode-line-emphasis)
                               'help-echo "Runs that are going; mouse-1 lists them"
                               'mouse-face 'mode-line-highlight
                               'local-map rlm--mode-line-map)
                 "")))
    (unless (equal-including-properties said rlm--mode-line)
      (setq rlm--mode-line said)
      (unless (memq 'rlm--mode-line (ensure-list global-mode-string))
        (setq global-mode-string
              (append '("") (ensure-list global-mode-string) '(rlm--mode-line))))
      (force-mode-line-update t))))

(defun rlm--mode-line-observe (_run event _data)
  "See to it that the mode line is right after EVENT."
  (when (memq event '(state ended))
    (rlm--mode-line-update)))

(add-hook 'rlm-run-functions #'rlm--mode-line-observe)

(defvar rlm--ticker nil
  "Timer that lets the header lines count seconds while runs are going.")

(defun rlm--ticker-start ()
  "See to it that header lines count seconds."
  (unless rlm--ticker
    (setq rlm--ticker (run-at-time 1 1 #'rlm--tick))))

(defun rlm--tick ()
  "Count a second in the header lines; stop when no run is going."
  (rlm--mode-line-update)
  (let ((going nil))
    (dolist (buffer (buffer-list))
      (when-let ((run (buffer-local-value 'rlm--run buffer)))
        (when (rlm-run-live-p run)
          (setq going t)
          (when (get-buffer-window buffer t)
            (rlm--queue-look run)
            (with-current-buffer buffer
              (force-mode-line-update))))))
    (unless going
      (cancel-timer rlm--ticker)
      (setq rlm--ticker nil))))

(provide 'rlm-header)
;;; rlm-header.el ends here
