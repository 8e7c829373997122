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
(declare-function rlm-follow-up "rlm-again" (run))
(declare-function rlm-answer-menu "rlm-transient" ())

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
                   (list (rlm-run-next rlm--run) (rlm-run-state rlm--run) (rlm-run-link rlm--run)
                         (rlm-run-activity rlm--run) (floor (rlm-run-elapsed rlm--run))
                         (rlm--client-state (rlm--client (rlm-run-socket rlm--run)))))))
    (unless (and rlm--header-known (equal from (car rlm--header-known)))
      (setq rlm--header-known (cons from (rlm--header-line))))
    (cdr rlm--header-known)))

(defun rlm--header-line ()
  "Return the header line of the current answer buffer."
  (if (null rlm--run)
      ""
    (let ((parts (delq nil (append (list (rlm--header-state rlm--run))
                                   (rlm--header-progress rlm--run)
                                   (rlm--header-buttons rlm--run)
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
   (when (> (rlm-run-pieces run) 0)
     (concat (format "%d/%d pieces" (rlm-run-pieces-done run) (rlm-run-pieces run))
             (when (> (rlm-run-pieces-cached run) 0)
               (format ", %d cached" (rlm-run-pieces-cached run)))
             (when (> (rlm-run-pieces-failed run) 0)
               (propertize (format ", %d failed" (rlm-run-pieces-failed run))
                           'face 'warning))))
   (when (rlm-run-hosts run)
     (mapconcat #'identity (rlm-run-hosts run) " "))
   (rlm--header-tokens run)
   (rlm--duration (rlm-run-elapsed run))))

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
          (append (cond ((rlm-run-live-p run) '(("[cancel]" . rlm-cancel)))
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

(provide 'rlm-header)
;;; rlm-header.el ends here
