;;; rlm-start.el --- Find and start the daemon -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Where the daemon's socket is, and how a daemon comes to listen there:
;; by the systemd unit rlmd.socket where there is one, else as a process
;; of its own that outlives Emacs.  A unit that is masked is the user's
;; no.  As with rlmctl the daemon gets little of our environment: a key
;; or a proxy of this session shall not live on in it.
;;
;; Nothing here waits: `rlm--start-daemon' calls back.

;;; Code:

(require 'rlm-base)

(defcustom rlm-socket nil
  "The socket on which rlmd listens.
If nil, it is rlmd/rlmd.sock in the folder that the environment
variable XDG_RUNTIME_DIR names.  It may be on another machine that
ssh reaches: /ssh:box:/run/user/1000/rlmd/rlmd.sock.  Where it is
buffer-local, questions from that buffer go to that daemon."
  :type '(choice (const :tag "In XDG_RUNTIME_DIR" nil)
                 (file :tag "This socket")
                 (string :tag "On another machine, by ssh"))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-auto-start t
  "Whether to start rlmd when none listens.
If t, the systemd unit rlmd.socket is started where there is one,
else the program `rlm-daemon-command', detached, so that it goes
on when Emacs ends."
  :type '(choice (const :tag "Yes, by systemd or else directly" t)
                 (const :tag "Yes, directly" direct)
                 (const :tag "No" nil))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-daemon-command '("rlmd")
  "The command that runs the daemon, as a list of program and arguments."
  :type '(repeat string)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defconst rlm--unit "rlmd.socket"
  "The systemd unit that listens for the daemon.")

(defconst rlm--start-timeout 20
  "Seconds in which a daemon that was started has to listen.")

(defconst rlm--poll-interval 0.1
  "Seconds between two looks at a daemon that starts.")

;;;; Where it is

(defun rlm-socket-path ()
  "Return the absolute name of the daemon's socket."
  (let ((default-directory temporary-file-directory)) ; not a remote one
    (cond
     ((null rlm-socket)
      (expand-file-name "rlmd.sock" (rlm--runtime-folder)))
     ((file-remote-p rlm-socket) rlm-socket)
     (t (expand-file-name rlm-socket)))))

(defun rlm--stay-with (socket)
  "Let what is asked in this buffer go to the daemon at SOCKET."
  (unless (equal socket (rlm-socket-path))
    (setq-local rlm-socket socket)))

(defun rlm--runtime-folder ()
  "Return the folder in which the daemon keeps its socket."
  (let ((base (or (getenv "XDG_RUNTIME_DIR") "")))
    (if (file-name-absolute-p base)
        (expand-file-name "rlmd" base)
      (format "/tmp/rlmd-%d" (user-uid)))))

(defun rlm--state-folder ()
  "Return the folder in which the daemon keeps its state and its log."
  (let ((base (or (getenv "XDG_STATE_HOME") "")))
    (expand-file-name "rlmd" (if (file-name-absolute-p base) base
                               "~/.local/state"))))

(defun rlm--listens-p (socket)
  "Return non-nil if somebody takes connections at SOCKET."
  (let ((default-directory temporary-file-directory))
    (condition-case nil
        (progn (delete-process (make-network-process
                                :name "rlm-probe" :family 'local
                                :service socket :noquery t))
               t)
      (error nil))))

;;;; Starting it

(defun rlm--start-daemon (socket success failure)
  "Start a daemon; when it listens at SOCKET call SUCCESS, else FAILURE.
FAILURE gets an error.  Both come later, and only one does.  If
there is nothing that could be started, signal a `user-error'."
  (let* ((program (executable-find (or (car rlm-daemon-command) "")))
         (systemctl (and (eq rlm-auto-start t) (null rlm-socket)
                         (file-directory-p
                          (expand-file-name "systemd" (getenv "XDG_RUNTIME_DIR")))
                         (executable-find "systemctl")))
         (open t)
         (once (lambda (function &rest args)
                 (when open
                   (setq open nil)
                   (apply function args))))
         (fail (lambda (error) (funcall once failure error))))
    (unless (or program systemctl)
      (user-error "No rlmd listens, and there is no program %s; see `rlm-daemon-command'"
                  (car rlm-daemon-command)))
    (rlm--await-daemon socket (lambda () open)
                       (lambda () (funcall once success)) fail)
    (if systemctl
        (rlm--start-unit systemctl socket program fail)
      (rlm--start-program program socket fail))))

(defun rlm--await-daemon (socket open success failure &optional timeout)
  "Look at SOCKET until somebody listens, while OPEN returns non-nil.
Then call SUCCESS, or after TIMEOUT seconds FAILURE with an error."
  (let ((deadline (+ (float-time) (or timeout rlm--start-timeout)))
        timer)
    (setq timer
          (run-at-time
           rlm--poll-interval rlm--poll-interval
           (lambda ()
             (cond
              ((not (funcall open))
               (cancel-timer timer))
              ((rlm--listens-p socket)
               (cancel-timer timer)
               (rlm--guarded success))
              ((> (float-time) deadline)
               (cancel-timer timer)
               (rlm--guarded failure
                             (rlm--problem
                              (format "rlmd was started, but does not listen at %s."
                                      socket)
                              "Look at it with: journalctl --user -u rlmd")))))))))

(defun rlm--start-unit (systemctl socket program failure)
  "Have SYSTEMCTL start the unit; without one run PROGRAM for SOCKET.
FAILURE is called with an error."
  (rlm--spawn
   (list systemctl "--user" "show" "--property=LoadState" "--value" rlm--unit)
   (lambda (status output)
     (cond
      ((and (eql status 0) (equal output "masked"))
       (funcall failure (rlm--problem
                         (format "%s is masked." rlm--unit)
                         (format "Allow it again with: systemctl --user unmask %s"
                                 rlm--unit))))
      ((and (eql status 0) (not (member output '("" "not-found"))))
       (rlm--spawn (list systemctl "--user" "start" rlm--unit)
                   (lambda (status output)
                     (unless (eql status 0)
                       (funcall failure
                                (rlm--problem
                                 (format "systemd could not start %s: %s"
                                         rlm--unit output)))))))
      (program (rlm--start-program program socket failure))
      (t (funcall failure
                  (rlm--problem
                   (format "There is neither a unit %s nor a program %s."
                           rlm--unit (car rlm-daemon-command))
                   "See `rlm-daemon-command'.")))))))

(defun rlm--start-program (program socket failure)
  "Run PROGRAM detached, to listen at SOCKET; call FAILURE if it ends at once.
setsid forks, so that the daemon is no child of Emacs and outlives
it, and waits, so that we learn at once of a daemon that will not run."
  (let* ((log (rlm--log-file))
         (setsid (executable-find "setsid"))
         (process-environment (rlm--daemon-environment)))
    (rlm--spawn
     (append (when setsid (list setsid "--fork" "--wait"))
             (list "/bin/sh" "-c" "exec \"$@\" >>\"$0\" 2>&1 </dev/null" log program)
             (cdr rlm-daemon-command)
             (when rlm-socket (list "--socket" socket)))
     (lambda (status _output)
       ;; Another client may have been faster; then somebody listens.
       (unless (rlm--listens-p socket)
         (funcall failure
                  (rlm--problem (format "%s ended at once with status %s."
                                        (car rlm-daemon-command) status)
                                (concat (when-let ((said (rlm--last-line log)))
                                          (concat "Its last words: " said "  "))
                                        "The log is " (abbreviate-file-name log)))))))))

(defun rlm--daemon-environment ()
  "Return what of our environment the daemon is given."
  (seq-filter (lambda (entry)
                (string-match-p "\\`\\(?:XDG_[^=]*\\|HOME\\|PATH\\|LANG\\)=" entry))
              process-environment))

(defun rlm--log-file ()
  "Return the file to which a daemon that we start writes its log."
  (let ((folder (rlm--state-folder)))
    (with-file-modes #o700
      (make-directory folder t))
    (expand-file-name "daemon.log" folder)))

(defun rlm--spawn (command callback)
  "Run COMMAND; when it ends call CALLBACK with status and output, trimmed.
Return the process."
  (let ((default-directory (expand-file-name "~/"))
        (buffer (generate-new-buffer " *rlm-start*")))
    (make-process
     :name "rlm-start" :command command :noquery t
     :connection-type 'pipe :buffer buffer
     :sentinel
     (lambda (process _event)
       (unless (process-live-p process)
         (let ((output (with-current-buffer buffer
                         (string-trim (buffer-string)))))
           (kill-buffer buffer)
           (rlm--guarded callback (process-exit-status process) output)))))))

(defun rlm--last-line (file)
  "Return the last line of FILE that holds something, or nil."
  (with-temp-buffer
    (ignore-errors (insert-file-contents file))
    (goto-char (point-max))
    (skip-chars-backward " \t\n")
    (let ((line (buffer-substring (line-beginning-position) (point))))
      (unless (string-empty-p line)
        (rlm--one-line line 400)))))

(provide 'rlm-start)
;;; rlm-start.el ends here
