;;; rlm-ask.el --- Ask, cancel, follow again -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The commands that begin a run and those that end or find it again.
;; A question and its texts become an `rlm-run'; the texts are taken to
;; the daemon one after the other, and then it is asked.

;;; Code:

(require 'rlm-rpc)
(require 'rlm-run)
(require 'rlm-fold)
(require 'rlm-choice)
(require 'rlm-context)
(require 'rlm-dwim)
(require 'cl-lib)

(declare-function rlm--answer-display "rlm-answer" (run))
(declare-function rlm--answer-make "rlm-answer" (run))
(declare-function rlm-compose-from-minibuffer "rlm-compose" ())
(declare-function project-root "project" (project))

(autoload 'rlm-dispatch "rlm-transient" nil t)

(defvar-local rlm--run nil
  "The run whose answer this buffer shows.")

(defvar rlm-query-history nil
  "History of questions.")

;;;; Asking

;;;###autoload
(cl-defun rlm-query (question source &key callback display
                              profile strategy root sub session limits fresh schema)
  "Ask QUESTION of SOURCE; return the run, an `rlm-run', at once.
SOURCE is a buffer (its accessible part), a string, a list
\(BUFFER START END), or a list of such.  CALLBACK is called with the
run when it is over, however it ended; see `rlm-run-state',
`rlm-run-answer', `rlm-run-citations' and `rlm-run-error'.  With
DISPLAY the answer streams into a buffer of its own, which is
displayed; if that is `echo' the answer is shown in the echo area
and put into the kill ring instead.

PROFILE is the name of one of `rlm-profiles'.  STRATEGY, ROOT, SUB
and LIMITS are as the options `rlm-strategy', `rlm-root-models',
`rlm-sub-models' and `rlm-limits', and count before the profile and
these.  SESSION is the name of a session whose names the run finds;
FRESH non-nil means that no sub-query is answered from the cache.
SCHEMA, a JSON Schema as a plist, has the answer be JSON that fits it.

Interactively the source is what `rlm-context-functions' find at
point.  With \\[universal-argument] the menu opens instead, where
another and more can be chosen; with \\[universal-argument]
\\[universal-argument] the source is the text that was asked about
last.  With a negative prefix argument the answer goes to the echo
area.  From Lisp, a QUESTION of nil opens the menu too."
  (interactive (rlm--read-query current-prefix-arg))
  (cond ((null question) (rlm-dispatch))
        ((string-blank-p question) (user-error "There is no question"))
        (t (rlm--query question source callback display schema
                       (list :profile profile :strategy strategy :root root :sub sub
                             :session session :limits limits :fresh fresh)))))

(defun rlm--query (question source callback display schema choices)
  "Ask QUESTION of SOURCE; return the run.
CALLBACK, DISPLAY and SCHEMA as in `rlm-query'; CHOICES are its others."
  (let* ((chosen (rlm--choices-with choices))
         (sources (mapcar (if (plist-get chosen :private) #'rlm--source-closed #'identity)
                          (rlm--sources-of source)))
         (own (and (eq display t) (null (plist-get chosen :session))))
         (run (rlm--run-make
               :id (rlm--new-id)
               :socket (rlm-socket-path)
               :question question
               :sources sources
               :begin #'rlm--begin
               :params (append
                        (rlm--params (if own
                                         (plist-put chosen :session (rlm--session-name))
                                       chosen))
                        (when schema (list :schema schema))))))
    (setf (rlm-run-session-own run) own)
    (when callback
      (rlm--run-when-over run callback))
    (rlm--begin run)
    (setq rlm--last-sources sources)
    (pcase display
      ('nil)
      ('echo (rlm--run-when-over run #'rlm--echo))
      (_ (require 'rlm-answer)
         (rlm--answer-display run)))
    run))

(defun rlm--run-when-over (run callback)
  "Call CALLBACK with RUN when it is over."
  (rlm--run-observe run (lambda (run event _data)
                          (when (eq event 'ended)
                            (funcall callback run)))))

(cl-defun rlm-query-sync (question source &rest keys &key timeout &allow-other-keys)
  "Ask QUESTION of SOURCE, wait, and return the answer, a string.
KEYS are those of `rlm-query' but for CALLBACK and DISPLAY.  A
failed run, and one that has not ended after TIMEOUT seconds, is a
`user-error'.  Quitting cancels the run.  Not for callbacks."
  (let* ((keys (cl-loop for (key value) on keys by #'cddr
                        unless (memq key '(:timeout :callback :display))
                        append (list key value)))
         (run (apply #'rlm-query question source keys))
         (inhibit-quit nil)
         over)
    (unwind-protect
        (setq over (rlm-wait run timeout))
      (unless over
        (rlm--guarded #'rlm-run-cancel run "nobody waits for it any more")))
    (cond ((null over) (user-error "No answer in %s s" timeout))
          ((rlm-run-error run) (user-error "%s" (rlm-error-text (rlm-run-error run))))
          ((string-empty-p (or (rlm-run-answer run) ""))
           (user-error "No answer: %s" (or (rlm-run-why run) (rlm-run-state run))))
          (t (rlm-run-answer run)))))

(defun rlm--session-name ()
  "Return a name that no session has."
  (concat "emacs-" (substring (rlm--new-id) 0 8)))

(defun rlm--echo (run)
  "Show the answer of RUN in the echo area; put it into the kill ring."
  (let ((answer (rlm-run-answer run)))
    (if (or (rlm-run-error run) (string-empty-p (or answer "")))
        (message "rlm: %s" (if (rlm-run-error run)
                               (rlm-error-text (rlm-run-error run))
                             (or (rlm-run-why run) "no answer")))
      (kill-new answer)
      (message "%s" (string-trim answer)))))

;;;;; What is asked of what

(defvar rlm-question-map
  (let ((map (make-sparse-keymap)))
    (set-keymap-parent map minibuffer-local-map)
    (define-key map (kbd "C-c C-e") #'rlm-compose-from-minibuffer)
    map)
  "Keymap of the minibuffer in which a question is asked.")

(defvar rlm--asked-of nil
  "The sources of the question that is being typed.")

(defun rlm--read-question (sources)
  "Read a question about SOURCES in the minibuffer."
  (let ((rlm--asked-of sources))
    (read-from-minibuffer (format "Ask of %s: " (rlm--describe sources))
                          nil rlm-question-map nil 'rlm-query-history)))

(defun rlm--read-query (prefix)
  "Return arguments for `rlm-query', as PREFIX, a raw prefix argument, wants.
That of one \\[universal-argument] wants the menu."
  (if (equal prefix '(4))
      (list nil nil)
    (let* ((echo (> 0 (prefix-numeric-value prefix)))
           (sources (rlm--dwim-source (and prefix (not echo)))))
      (list (rlm--read-question sources) sources :display (if echo 'echo t)))))

(defun rlm--ask-of (sources)
  "Read a question about SOURCES and ask it."
  (rlm-query (rlm--read-question sources) sources :display t))

;;;###autoload
(defun rlm-query-project ()
  "Ask a question of all files of the current project.
Files that version control ignores are not looked at."
  (interactive)
  (require 'project)
  (let* ((root (project-root (project-current t)))
         (name (file-name-nondirectory (directory-file-name root))))
    (when (file-remote-p root)
      (user-error "This project is on another machine: mark files in Dired instead"))
    (rlm--ask-of (list (rlm--source-from-paths (list root) (concat "project " name))))))

;;;###autoload
(defun rlm-query-directory (directory)
  "Ask a question of all files below DIRECTORY."
  (interactive "DAsk of directory: ")
  (rlm--ask-of (rlm--sources-of-files (list (expand-file-name directory)))))

;;;###autoload
(defun rlm-query-context (name)
  "Ask a question of the context NAME that the daemon has."
  (interactive (list (rlm--read-context "Ask of context: ")))
  (rlm--ask-of (list (rlm--source-from-context name))))

(defun rlm--read-context (prompt)
  "Read the name of a context with PROMPT."
  (let ((contexts (append (plist-get (rlm-call-sync "context/list" nil) :contexts) nil)))
    (when (null contexts)
      (user-error "The daemon has no contexts"))
    (completing-read prompt (mapcar (lambda (context) (plist-get context :name))
                                    contexts)
                     nil t)))

;;;###autoload
(defun rlm-keep-context (name)
  "Keep what is at point in the daemon, as the context NAME.
It is there until it is dropped, and loading it again brings it up
to date."
  (interactive "sKeep as context: ")
  (when (string-blank-p name)
    (user-error "A context needs a name"))
  (let ((sources (rlm--dwim-source nil)))
    (when (cdr sources)
      (user-error "These are %d texts; a context is one" (length sources)))
    (let ((source (copy-rlm-source (car sources)))
          (socket (rlm-socket-path))
          (told (lambda (error) (message "rlm: %s" (rlm-error-text error)))))
      (setf (rlm-source-keep source) name
            (rlm-source-name source) nil)
      (unless (rlm--client-live-p (rlm--client socket))
        (rlm--source-snapshot source))
      (rlm--when-ready (rlm--client socket)
                       (lambda ()
                         (rlm--source-load
                          source socket
                          (lambda (name) (message "Kept as context %s" name))
                          told))
                       told))))

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
                     (lambda (error) (rlm--run-refused run error)))
    (puthash (rlm-run-id run) run rlm--runs)))

(defun rlm--load-then-ask (run sources names again)
  "Have SOURCES of RUN loaded one after the other, then ask.
NAMES are the contexts that are there, last first.  AGAIN is
non-nil if the daemon had forgotten one and this is the second try."
  (cond
   ((not (rlm-run-live-p run)))         ; it was cancelled meanwhile
   ((null sources)
    (setf (rlm-run-state run) 'new)
    (rlm--run-start run (reverse names)
                    (unless again
                      (lambda ()
                        (dolist (source (rlm-run-sources run))
                          (unless (rlm-source-stored source)
                            (setf (rlm-source-name source) nil)))
                        (rlm--load-then-ask run (rlm-run-sources run) nil t)))))
   (t
    (rlm--source-load (car sources) (rlm-run-socket run)
                      (lambda (name)
                        (rlm--load-then-ask run (cdr sources) (cons name names) again))
                      (lambda (error)
                        (when (rlm-run-live-p run)
                          (rlm--run-refused run error)))))))

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
    ('nil (user-error "There is no such run"))
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

(defun rlm--asking-runs ()
  "Return the runs that wait for an answer, newest first."
  (seq-filter #'rlm-run-asks (rlm--live-runs)))

;;;###autoload
(defun rlm-confirm (run)
  "Answer RUN, which asks whether it may take long.
The keys are y: it goes on; n: it ends with what it has; and, where
there is another way, m or the first letter of its name.  It waits
for as long as you like."
  (interactive (list (if (and rlm--run (rlm-run-asks rlm--run))
                         rlm--run
                       (rlm--read-run "Answer: " (rlm--asking-runs)))))
  (let* ((asks (or (rlm-run-asks run) (user-error "This run asks nothing")))
         (ways (append (plist-get asks :alternatives) nil))
         (letters (mapcar (lambda (way) (cons (aref way 0) way)) ways))
         (prompt (format "%s (y, n%s) " (rlm--run-question-text run)
                         (mapconcat (lambda (pair) (format ", %c: %s" (car pair) (cdr pair)))
                                    letters "")))
         (key (read-char-choice prompt (append '(?y ?n) (mapcar #'car letters)))))
    (rlm--confirm run (if (eq key ?n) "refuse" "accept") (cdr (assq key letters)))))

(defun rlm--confirm (run choice strategy)
  "Answer CHOICE to what RUN asks; STRATEGY is one to follow instead, or nil."
  (rlm-call "run/confirm"
            (append (list :run_id (rlm-run-id run) :choice choice)
                    (when strategy (list :strategy strategy)))
            :socket (rlm-run-socket run)))

(defun rlm--lost-runs ()
  "Return the runs that could be followed again, newest first."
  (seq-filter (lambda (run) (eq 'lost (rlm-run-link run))) (rlm--live-runs)))

(autoload 'rlm--ticker-start "rlm-header")
(autoload 'rlm-open-run "rlm-again" nil t)

;;;###autoload
(defun rlm-attach (run)
  "Follow RUN again: that of the current answer buffer, else one that was lost.
The connection to the daemon is made anew if need be; what
happened meanwhile is caught up with.  If this Emacs has lost none,
one of those that the daemon knows is opened, such as one that an
earlier Emacs asked for."
  (interactive (list (or rlm--run
                         (and (rlm--lost-runs)
                              (rlm--read-run "Follow again: " (rlm--lost-runs))))))
  (cond ((null run) (call-interactively #'rlm-open-run))
        ((memq (rlm-run-state run) '(ended failed cancelled))
         (user-error "This run is over"))
        (t (rlm-run-attach run)
           (rlm--ticker-start))))

(provide 'rlm-ask)
;;; rlm-ask.el ends here
