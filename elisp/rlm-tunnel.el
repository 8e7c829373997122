;;; rlm-tunnel.el --- Reach a daemon on another machine -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Where `rlm-socket' is a remote file name, such as
;; /ssh:box:/run/user/1000/rlmd/rlmd.sock, ssh carries a socket of ours
;; to that one.  ssh must get in without asking: nobody would see its
;; question.  Nothing here waits.
;;
;; ssh listens here before it knows whether anybody listens there, and
;; closes what it cannot carry.  So a connection that says nothing goes
;; first, and only if it lasts is there one that is written to: to
;; write to one that is closed ends a batch Emacs, by SIGPIPE.
;;
;; ssh reads nothing here, so it would not notice that an Emacs which was
;; killed is gone.  A shell beside it does: its standard input ends then.

;;; Code:

(require 'rlm-start)
(require 'cl-lib)
(require 'tramp)

(defcustom rlm-ssh-command '("ssh")
  "The command that reaches a daemon on another machine, with arguments.
It must not ask for a password: use keys and an agent."
  :type '(repeat string)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defconst rlm--tunnel-timeout 30
  "Seconds in which ssh has to get in.")

(defconst rlm--tunnel-lasts 0.3
  "Seconds after which a connection that ssh has not closed is carried.
Without load one to nobody was closed after 3 ms.  Where the way is
longer, what is written comes before the end.")

(cl-defstruct (rlm--tunnel (:constructor rlm--tunnel-make) (:copier nil))
  "What carries a socket of ours to one on another machine."
  process
  (folder nil :documentation "Folder of our socket, for us alone.")
  (socket nil :documentation "Our socket."))

(defun rlm--tunnel-live-p (tunnel)
  "Return non-nil if somebody takes connections at our end of TUNNEL."
  (and tunnel
       (process-live-p (rlm--tunnel-process tunnel))
       (rlm--listens-p (rlm--tunnel-socket tunnel))))

(defconst rlm--tunnel-lifeline "exec 3<&0
socket=$0
\"$@\" </dev/null 3<&- &
ssh=$!
{ while read -r _; do :; done; kill $ssh; } <&3 2>/dev/null &
lookout=$!
wait $ssh
status=$?
kill $lookout 2>/dev/null
rm -f \"$socket\"
rmdir \"${socket%/*}\" 2>/dev/null
exit $status"
  "A program of sh that runs its arguments until its standard input ends.
Its name is the socket that it then removes, and the folder of that.")

(defun rlm--tunnel-command (remote local)
  "Return the command that carries LOCAL, a socket, to REMOTE, a remote file name."
  (let ((parts (tramp-dissect-file-name remote)))
    (unless (member (tramp-file-name-method parts) '("ssh" "sshx" "scp" "scpx" "rsync"))
      (user-error "A daemon is reached by ssh, not by %s" (tramp-file-name-method parts)))
    (when (tramp-file-name-hop parts)
      (user-error "Several hops are not for `rlm-socket': use ProxyJump in ~/.ssh/config"))
    (append (list "/bin/sh" "-c" rlm--tunnel-lifeline local)
            rlm-ssh-command
            (list "-N" "-T" "-o" "BatchMode=yes" "-o" "ExitOnForwardFailure=yes"
                  "-o" "StreamLocalBindUnlink=yes" "-o" "ServerAliveInterval=15"
                  "-o" "ControlMaster=no" "-o" "ControlPath=none"
                  "-L" (format "%s:%s" local (tramp-file-name-localname parts)))
            (when-let ((user (tramp-file-name-user parts))) (list "-l" user))
            (when-let ((port (tramp-file-name-port parts))) (list "-p" (format "%s" port)))
            (list "--" (tramp-file-name-host parts)))))

(defun rlm--tunnel-open (remote success failure)
  "Return a tunnel to REMOTE; when it carries, call SUCCESS, else FAILURE.
FAILURE gets an error.  Both come later, and only one does."
  (let* ((default-directory temporary-file-directory)
         (folder (make-temp-file (expand-file-name "rlm-" (rlm--short-folder)) t))
         (socket (expand-file-name "s" folder))
         (open t)
         (once (lambda (function &rest args)
                 (when open
                   (setq open nil)
                   (apply function args))))
         (process (condition-case err
                      (rlm--spawn
                       (rlm--tunnel-command remote socket)
                       (lambda (status output)
                         (ignore-errors (delete-directory folder t))
                         (funcall once failure (rlm--tunnel-problem remote status output))))
                    (error (delete-directory folder t)
                           (signal (car err) (cdr err))))))
    (rlm--await-daemon socket (lambda () open)
                       (lambda ()
                         (rlm--tunnel-probe remote socket
                                            (lambda () (funcall once success))
                                            (lambda (error) (funcall once failure error))))
                       (lambda (_)
                         (delete-process process)
                         (funcall once failure
                                  (rlm--tunnel-problem remote nil "it did not get in in time")))
                       rlm--tunnel-timeout)
    (rlm--tunnel-make :process process :folder folder :socket socket)))

(defun rlm--tunnel-probe (remote socket success failure)
  "See whether a connection at SOCKET is carried to REMOTE.
Then call SUCCESS, else FAILURE with an error; both come later."
  (let* ((default-directory temporary-file-directory)
         (open t)
         (end (lambda (carried)
                (when open
                  (setq open nil)
                  (if carried
                      (rlm--guarded success)
                    (rlm--guarded failure (rlm--tunnel-nobody remote)))))))
    (condition-case nil
        (let ((process (make-network-process
                        :name "rlm-probe" :family 'local :service socket :noquery t
                        :sentinel (lambda (process _event)
                                    (unless (process-live-p process)
                                      (funcall end nil))))))
          (run-at-time rlm--tunnel-lasts nil
                       (lambda ()
                         ;; It may have been closed just now.
                         (accept-process-output process 0 nil 1)
                         (funcall end (and (process-live-p process) t))
                         (delete-process process))))
      (error (run-at-time 0 nil end nil)))))

(defun rlm--tunnel-nobody (remote)
  "Return the error of REMOTE, where ssh gets in, but no daemon is."
  (rlm--problem (format "No rlmd listens at %s." remote)
                "Start it there: systemctl --user enable --now rlmd.socket"))

(defun rlm--short-folder ()
  "Return a folder for sockets: their names may have 107 bytes."
  (let ((runtime (or (getenv "XDG_RUNTIME_DIR") "")))
    (if (and (file-name-absolute-p runtime) (file-accessible-directory-p runtime))
        runtime
      "/tmp")))

(defun rlm--tunnel-problem (remote status output)
  "Return the error of a tunnel to REMOTE that ended with STATUS and OUTPUT."
  (let ((said (car (last (split-string output "\n" t "[ \t\r]+")))))
    (rlm--problem (format "ssh cannot reach %s: %s" (rlm--tunnel-host remote)
                          (or said (format "it ended with status %s" status)))
                  (format "It must get in without asking; try: %s -o BatchMode=yes %s true"
                          (string-join rlm-ssh-command " ") (rlm--tunnel-host remote)))))

(defun rlm--tunnel-host (remote)
  "Return the host that REMOTE, a remote file name, names."
  (tramp-file-name-host (tramp-dissect-file-name remote)))

(defun rlm--tunnel-close (tunnel)
  "End TUNNEL, if it is one."
  (when (and tunnel (process-live-p (rlm--tunnel-process tunnel)))
    (delete-process (rlm--tunnel-process tunnel))))

(provide 'rlm-tunnel)
;;; rlm-tunnel.el ends here
