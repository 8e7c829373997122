;;; emacs.el --- Measure rlm.el, and gptel beside it -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Loaded into an Emacs in a terminal by bench_emacs.py.  Each function
;; bench-NAME measures one thing and returns a plist of numbers;
;; `bench-write' puts it into a file as JSON and ends Emacs.
;;
;; An Emacs that is busy runs no timer: the longest time between two
;; calls of a timer that should come every 5 ms is the longest block.
;; The same in processor time is what Emacs itself did, however busy the
;; machine was with others.

;;; Code:

(require 'cl-lib)
(require 'json)

(defconst bench-patience 240
  "Seconds after which a state is taken never to come.")

(defun bench-await (function)
  "Wait until FUNCTION returns non-nil, as an Emacs waits for its user."
  (let ((deadline (+ (float-time) bench-patience)))
    (while (not (funcall function))
      (when (> (float-time) deadline)
        (error "Waited in vain"))
      (sit-for 0.02))))

(defun bench-cpu ()
  "Return the seconds of processor that this Emacs has used."
  (float-time (get-internal-run-time)))

(defun bench-resident ()
  "Return the megabytes of memory that this Emacs holds."
  (with-temp-buffer
    (insert-file-contents "/proc/self/status")
    (re-search-forward "^VmRSS:[ \t]*\\([0-9]+\\)")
    (/ (string-to-number (match-string 1)) 1024.0)))

(defun bench-watched (work)
  "Call WORK; return a plist of what it took, in milliseconds.
Garbage of what was before is no part of it: a collection takes 30 ms,
and would come before the first character or after it by chance."
  (garbage-collect)
  (let* ((began (float-time))
         (cpu (bench-cpu))
         (longest 0)
         (longest-cpu 0)
         (last began)
         (last-cpu cpu)
         (timer (run-at-time 0 0.005 (lambda ()
                                       (let ((now (float-time))
                                             (now-cpu (bench-cpu)))
                                         (setq longest (max longest (- now last))
                                               longest-cpu (max longest-cpu (- now-cpu last-cpu))
                                               last now
                                               last-cpu now-cpu))))))
    (unwind-protect (funcall work)
      (cancel-timer timer))
    (list :total (* 1000 (- (float-time) began))
          :cpu (* 1000 (- (bench-cpu) cpu))
          :longest (* 1000 longest)
          :longest-cpu (* 1000 longest-cpu))))

(defun bench-text (chars)
  "Return Markdown of CHARS characters, as a model writes it."
  (let* ((paragraph "A line of **prose** with `code` in it, some żółw, and what else a model says.\n")
         (count (1+ (/ chars (length paragraph)))))
    (substring (apply #'concat (make-list count paragraph)) 0 chars)))

(defun bench-write (file function)
  "Write what FUNCTION returns to FILE as JSON, and end Emacs."
  ;; Its first buffer loads Org, whoever asks for it.
  (require 'org)
  (with-temp-buffer (org-mode))
  (let ((result (condition-case err (funcall function)
                  (error (list :error (error-message-string err))))))
    (with-temp-file file
      (insert (json-encode (append result (list :emacs emacs-version)))))
    (let ((kill-emacs-hook nil)
          (kill-emacs-query-functions nil)
          (confirm-kill-processes nil))
      (kill-emacs))))

;;;; Deltas at full speed

(declare-function rlm--run-make "rlm-run")
(declare-function rlm--answer-display "rlm-answer")
(declare-function rlm--run-settled-p "rlm-run")
(declare-function rlm-call-sync "rlm-rpc")
(declare-function rlm-call "rlm-rpc")
(declare-function rlm-query "rlm-ask")
(defvar rlm--runs)
(defvar rlm--run)
(defvar rlm--answer-stream)
(defvar rlm-strategy)

(defun bench-complete-p (buffer)
  "Return non-nil if the answer in BUFFER is complete."
  (with-current-buffer buffer
    (and (rlm--run-settled-p rlm--run)
         (null (rlm--stream-closing rlm--answer-stream)))))

(defun bench-deltas ()
  "20,000 deltas from a server that sends as fast as it can, into a seen buffer."
  (require 'rlm-ask)
  (require 'rlm-answer)
  (let* ((id "00000000-0000-4000-a000-000000000001")
         (run (rlm--run-make :id id :socket (rlm-socket-path) :question "Fast?"
                             :link 'attached :state 'running))
         buffer)
    (rlm-call-sync "test/seen" nil)
    (puthash id run rlm--runs)
    (setq buffer (rlm--answer-display run))
    (sit-for 0.1)
    (bench-watched
     (lambda ()
       (rlm-call "test/deltas" (list :run_id id :text (bench-text 1000) :times 1000 :chars 50))
       (bench-await (lambda () (bench-complete-p buffer)))))))

(defun bench-deltas-floor ()
  "The same messages, read and parsed, and nothing done with them."
  (require 'rlm-ask)
  (let ((seen 0))
    (rlm-call-sync "test/seen" nil)
    (setq rlm--notification-functions
          (list (lambda (_socket method _params)
                  (when (eq method 'run/fact) (cl-incf seen)))))
    (bench-watched
     (lambda ()
       (rlm-call "test/deltas" (list :run_id "none" :text (bench-text 1000) :times 1000 :chars 50))
       (bench-await (lambda () (= seen 3)))))))

;;;; An answer, by rlm.el and by gptel

(defun bench-typing-at (buffer words)
  "Note when BUFFER first shows WORDS; return a function that tells when."
  (let (first)
    (with-current-buffer buffer
      (add-hook 'after-change-functions
                (lambda (beg end _length)
                  (unless first
                    (save-excursion
                      (save-match-data
                        (goto-char (max (point-min) (- beg 40)))
                        (when (search-forward words (min (point-max) (+ end 40)) t)
                          (setq first (float-time)))))))
                nil t))
    (lambda () first)))

(defun bench-rlm-answer (&optional meanwhile)
  "Ask by rlm.el; call MEANWHILE with the answer's buffer while it comes."
  (require 'rlm-ask)
  (require 'rlm-answer)
  (rlm-call-sync "daemon/status" nil)
  (let* ((notes (get-buffer-create "notes.txt"))
         (rlm-strategy "direct")
         (before (buffer-list))
         buffer first began)
    (with-current-buffer notes
      (insert "A text that is asked about.\n"))
    (switch-to-buffer notes)
    (append
     (bench-watched
      (lambda ()
        (setq began (float-time))
        (rlm-query "What is said?" notes :display t)
        (setq buffer (seq-find (lambda (one) (not (memq one before))) (seq-filter (lambda (one) (buffer-local-value 'rlm--run one)) (buffer-list)))
              first (bench-typing-at buffer "A line"))
        (when meanwhile (funcall meanwhile buffer))
        (bench-await (lambda () (bench-complete-p buffer)))))
     (list :first (* 1000 (- (funcall first) began))
           :chars (buffer-size buffer)))))

(declare-function gptel-make-ollama "gptel-ollama")
(declare-function gptel-mode "gptel")
(declare-function gptel-send "gptel")
(defvar gptel-backend)
(defvar gptel-model)
(defvar gptel-stream)
(defvar gptel-use-curl)
(defvar gptel-post-response-functions)

(defun bench-gptel-buffer ()
  "Return a chat buffer of gptel in Org mode, with the question typed."
  (require 'gptel)
  (require 'gptel-ollama)
  (require 'org)
  (let ((buffer (get-buffer-create "*chat*")))
    (setq gptel-model 'root
          gptel-stream t
          gptel-backend (gptel-make-ollama "fake" :host (getenv "BENCH_MODEL") :stream t :models '(root)))
    (switch-to-buffer buffer)
    (org-mode)
    (gptel-mode 1)
    (insert "A text that is asked about.\n\nWhat is said?")
    buffer))

(defun bench-gptel-answer (&optional meanwhile)
  "Ask by gptel; call MEANWHILE with the buffer while the answer comes."
  (let* ((buffer (bench-gptel-buffer))
         (first (bench-typing-at buffer "A line"))
         over began)
    (add-hook 'gptel-post-response-functions (lambda (&rest _) (setq over t)))
    (append
     (bench-watched
      (lambda ()
        (setq began (float-time))
        (gptel-send)
        (when meanwhile (funcall meanwhile buffer))
        (bench-await (lambda () over))))
     (list :first (* 1000 (- (funcall first) began))
           :chars (buffer-size buffer)))))

;;;; Point and undo

(defun bench-undo-steps (buffer begun)
  "Return how often `undo' must be called until BUFFER is BEGUN again."
  (with-current-buffer buffer
    (let ((steps 0)
          (inhibit-read-only t)
          (last-command nil))
      (undo-boundary)
      (while (and (< steps 60) (not (equal begun (buffer-string))))
        (condition-case nil
            (let ((this-command 'undo))
              (undo)
              (undo-boundary)
              (setq last-command 'undo))
          (error (setq steps 100)))
        (cl-incf steps))
      steps)))

(defun bench-while-typing (ask)
  "Call ASK, and type ten words above the answer while it comes.
Return where point is then, as the characters it moved by itself,
and in how many steps `undo' takes the answer away."
  (let (begun typed place)
    (funcall ask
             (lambda (buffer)
               (switch-to-buffer buffer)
               (goto-char (point-min))
               (undo-boundary)
               (setq begun (buffer-string))
               (dotimes (n 10)
                 (let ((size (buffer-size)))
                   (bench-await (lambda () (> (buffer-size) (+ size 100)))))
                 (let ((inhibit-read-only t))
                   (goto-char (+ (point-min) (* 2 n)))
                   (insert "w ")
                   (undo-boundary)
                   (push "w " typed)))
               (setq place (cons buffer (point)))))
    (with-current-buffer (car place)
      (list :moved (abs (- (point) (cdr place)))
            :undo (bench-undo-steps (car place) begun)))))

(defun bench-rlm-typing ()
  "Point and undo in an answer buffer of rlm.el."
  (bench-while-typing #'bench-rlm-answer))

(defun bench-gptel-typing ()
  "Point and undo in a chat buffer of gptel."
  (bench-while-typing #'bench-gptel-answer))

(defun bench-rlm-undo ()
  "Steps of undo for an answer of rlm.el that nobody disturbed."
  (bench-undisturbed #'bench-rlm-answer))

(defun bench-gptel-undo ()
  "Steps of undo for an answer of gptel that nobody disturbed."
  (bench-undisturbed #'bench-gptel-answer))

(defun bench-undisturbed (ask)
  "Call ASK; return in how many steps `undo' takes its answer away."
  (let (begun buffer)
    (funcall ask (lambda (it)
                   (with-current-buffer (setq buffer it)
                     (undo-boundary)
                     (setq begun (buffer-string)))))
    (list :undo (bench-undo-steps buffer begun))))

;;;; Memory

(defun bench-memory ()
  "How much Emacs grows when it asks of a buffer of 40 MB."
  (require 'rlm-ask)
  (require 'rlm-answer)
  (rlm-call-sync "daemon/status" nil)
  (let ((notes (get-buffer-create "notes.txt"))
        (most 0)
        before buffer)
    (with-current-buffer notes
      (buffer-disable-undo)
      (dotimes (_ 40) (insert (bench-text 1000000)))
      (buffer-enable-undo))
    (switch-to-buffer notes)
    (garbage-collect)
    (setq before (bench-resident))
    (let ((timer (run-at-time 0 0.02 (lambda () (setq most (max most (bench-resident)))))))
      (rlm-query "Where?" notes :display t :strategy "rlm")
      (setq buffer (seq-find (lambda (one) (buffer-local-value 'rlm--run one)) (buffer-list)))
      (bench-await (lambda () (bench-complete-p buffer)))
      (cancel-timer timer))
    (list :megabytes (/ (position-bytes (with-current-buffer notes (point-max))) 1e6)
          :grown (- (max most (bench-resident)) before))))

;;; emacs.el ends here
