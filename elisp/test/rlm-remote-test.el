;;; rlm-remote-test.el --- Daemons on other machines, and several at once -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The other machine is this one, reached by a real ssh and a real sshd
;; that have keys and settings of their own: no port, no agent and
;; nothing of the user's is touched.

;;; Code:

(require 'rlm-test)
(require 'rlm-tunnel)
(require 'rlm-status)
(require 'tramp)

(defun rlm-test-script (name text)
  "Write TEXT as the executable NAME in the test's folder; return its full name."
  (let ((file (rlm-test-file name text)))
    (set-file-modes file #o700)
    file))

(defun rlm-test-ssh ()
  "Make a program ssh that knows one host, box, which is this machine.
Each connection has an sshd of its own at the other end of a pipe."
  (let* ((in (lambda (name) (expand-file-name name rlm-test-folder)))
         (sshd (or (executable-find "sshd") "/usr/sbin/sshd")))
    (dolist (key '("host" "mine"))
      (should (= 0 (call-process "ssh-keygen" nil nil nil "-q" "-t" "ed25519" "-N" "" "-f" (funcall in key)))))
    (when (= 0 (user-uid))
      (make-directory "/run/sshd" t))   ; where it drops its privileges
    (rlm-test-file "sshd_config"
                   (format "HostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nAcceptEnv *\n"
                           (funcall in "host") (funcall in "mine.pub")))
    (rlm-test-file "ssh_config"
                   (format "Host box\n HostName localhost\n User %s\n IdentityFile %s\n IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile /dev/null\n StrictHostKeyChecking no\n LogLevel ERROR\n ProxyCommand %s -i -f %s\n"
                           (user-login-name) (funcall in "mine") sshd (funcall in "sshd_config")))
    (make-directory (funcall in "bin"))
    (rlm-test-script "bin/ssh" (format "#!/bin/sh\nexec %s -F %s \"$@\"\n"
                                       (executable-find "ssh") (funcall in "ssh_config")))
    (push (funcall in "bin") exec-path)
    (setenv "PATH" (concat (funcall in "bin") ":" (getenv "PATH")))))

(defun rlm-test-tunnels-close ()
  "End all tunnels."
  (maphash (lambda (_socket client) (rlm--tunnel-close (rlm--client-tunnel client)))
           rlm--clients))

(defmacro rlm-test-with-remote (models &rest body)
  "Run BODY with a daemon as in `rlm-test-with-daemon', which MODELS serve, over ssh."
  (declare (indent 1) (debug t))
  `(rlm-test-with-daemon ,models
     (rlm-test-ssh)
     (let ((rlm-socket (concat "/ssh:box:" (rlm-socket-path))))
       (unwind-protect (progn ,@body)
         (rlm-test-tunnels-close)))))

(defun rlm-test-calls (work)
  "Call WORK; return the methods and parameters of all that was asked meanwhile."
  (let* ((calls nil)
         (note (lambda (method params &rest _) (push (cons method params) calls))))
    (advice-add 'rlm-call :before note)
    (unwind-protect (funcall work)
      (advice-remove 'rlm-call note))
    (nreverse calls)))

(ert-deftest rlm-remote-a-large-text-goes-in-chunks ()
  "By ssh: a text of several chunks arrives byte for byte, and its citation is found.
What is on its way is not left on the disk; the same text is not sent again."
  (rlm-test-with-remote (:scripts '(("root" . ("```repl\nat = context.index('NEEDLE')\nanswer['content'] = '> ' + context[at:at + 12]\nanswer['ready'] = True\n```"))))
    (rlm-test-with-notes (concat (mapconcat #'identity (make-list 20000 "żółw and sheep, a line") "\n")
                                 "\nraw " (string (unibyte-char-to-multibyte #xe9)) " NEEDLE in it\n"
                                 (make-string 10000 ?x) "\n")
      (let* ((rlm-strategy "rlm")
             buffer
             (calls (rlm-test-calls (lambda ()
                                      (setq buffer (rlm-test-ask "Where?"))
                                      (rlm-test-complete buffer))))
             (run (rlm-test-run-of buffer))
             (source (car (rlm-run-sources run))))
        (should-not (assoc "context/load" calls))
        (should (< 3 (seq-count (lambda (call) (equal "context/append" (car call))) calls)))
        (should (rlm-source-exact source))
        (should (equal '(t) (mapcar #'rlm--citation-verified-p (rlm-run-citations run))))
        (should (string-match-p "notes\\.txt:20001" (rlm-test-answer-text buffer)))
        (should-not (directory-files (getenv "XDG_RUNTIME_DIR") nil "\\`rlm-.\\{40\\}"))
        (should-not (seq-filter (lambda (call) (string-prefix-p "context/" (car call)))
                                (rlm-test-calls
                                 (lambda () (rlm-wait (rlm-query "Again?" (current-buffer)) rlm-test-patience)))))))))

(ert-deftest rlm-remote-a-file-is-read-as-the-daemon-reads-files ()
  "A marked file goes to a daemon elsewhere too; a folder is refused, with what to do."
  (rlm-test-with-remote (:scripts '(("root" . ("> the NEEDLE lies\nIt lies."))))
    (let* ((rlm-strategy "direct")
           (file (rlm-test-file "paper.txt" "one\nthe NEEDLE lies\n"))
           (run (rlm-query "Where?" (car (rlm--sources-of-files (list file)))))
           (folder (rlm-query "Where?" (car (rlm--sources-of-files (list rlm-test-folder))))))
      (rlm-wait run rlm-test-patience)
      (should-not (rlm-run-error run))
      (should (equal '(t) (mapcar #'rlm--citation-verified-p (rlm-run-citations run))))
      (rlm-wait folder rlm-test-patience)
      (should (string-match-p "box does not see these files\\..*Ask of one file"
                              (rlm-error-text (rlm-run-error folder)))))))

(ert-deftest rlm-remote-a-tunnel-that-breaks-is-dug-again ()
  "ssh dies in mid-stream: by itself Emacs follows the run again, to its end."
  (rlm-test-with-remote (:scripts `(("root" . (,rlm-test-slowly))))
    (let ((rlm-reattach t))
      (rlm-test-with-notes "text\n"
        (let* ((buffer (rlm-test-ask "Q?"))
               (run (rlm-test-run-of buffer)))
          (rlm-test-await-words buffer "Slowly the")
          (kill-process (rlm--tunnel-process (rlm--client-tunnel (rlm--client))))
          (rlm-test-await (eq 'lost (rlm-run-link run)))
          (should (string-match-p "398 399 400 and that is all" (rlm-test-complete buffer))))))))

(ert-deftest rlm-remote-nobody-there-says-what-to-do ()
  "No daemon there, no such host, no such way: an error with its reason, nothing left over."
  (rlm-test-with-home
    (rlm-test-ssh)
    (unwind-protect
        (progn
          (let ((rlm-socket (concat "/ssh:box:" rlm-test-folder "/none.sock")))
            (should (string-match-p "No rlmd listens at .*rlmd\\.socket"
                                    (cadr (should-error (rlm-call-sync "daemon/status" nil :timeout rlm-test-patience)
                                                        :type 'user-error)))))
          (let ((rlm-socket "/ssh:nowhere.invalid:/s"))
            (should (string-match-p "ssh cannot reach nowhere\\.invalid: .*BatchMode"
                                    (cadr (should-error (rlm-call-sync "daemon/status" nil :timeout rlm-test-patience)
                                                        :type 'user-error)))))
          (pcase-dolist (`(,socket . ,told) '(("/sudo:root@box:/s" . "by ssh, not by sudo")
                                              ("/ssh:one|ssh:two:/s" . "ProxyJump")))
            (let ((rlm-socket socket))
              (should (string-match-p told (cadr (should-error (rlm-call-sync "daemon/status" nil)
                                                               :type 'user-error)))))))
      (rlm-test-tunnels-close))
    (rlm-test-await (null (directory-files (getenv "XDG_RUNTIME_DIR") nil "\\`rlm-")))))

;; What a batch Emacs does: it is not spared SIGPIPE, as others are.
(defconst rlm-test-asks-in-vain
  "(progn
     (require 'rlm-rpc)
     ;; The other end has closed before we come to write.
     (advice-add 'rlm--make-connection :after (lambda (&rest _) (call-process \"sleep\" nil nil nil \"0.5\")))
     (condition-case err
         (rlm-call-sync \"daemon/status\" nil :socket %S)
       (user-error (princ (cadr err)))))"
  "A program that asks the daemon at a socket, and prints the error.")

(ert-deftest rlm-remote-a-connection-that-closes-at-once-kills-no-batch-emacs ()
  "Where ssh listens and no daemon does, nothing is written: SIGPIPE would end Emacs."
  (rlm-test-with-home
    (let* ((socket (expand-file-name "closing.sock" rlm-test-folder))
           (server (make-network-process :name "closing" :server t :family 'local :service socket
                                         :noquery t :sentinel (lambda (process _) (delete-process process))))
           (emacs (expand-file-name invocation-name invocation-directory))
           (process (rlm-test-spawn "batch" "env" "--default-signal=PIPE" emacs "-Q" "--batch"
                                    "-L" (expand-file-name "elisp" rlm-test-root)
                                    "--eval" (format rlm-test-asks-in-vain socket))))
      (unwind-protect
          (progn
            (rlm-test-await (not (process-live-p process)))
            (should (equal 'exit (process-status process)))
            (should (string-match-p "it was closed at once"
                                    (rlm-test-output process))))
        (delete-process server)))))

(defconst rlm-test-digs
  "(progn
     (require 'rlm-rpc)
     (require 'rlm-tunnel)
     (rlm-call-sync \"daemon/status\" nil :socket %S)
     (message \"%%s\" (rlm--tunnel-socket (rlm--client-tunnel (rlm--client %S))))
     (while t (accept-process-output nil 1)))"
  "A program that connects to a daemon elsewhere, prints our end, and stays.")

(ert-deftest rlm-remote-a-killed-emacs-leaves-no-tunnel ()
  "When Emacs is killed, ssh ends, and its socket and the folder of that are gone."
  (rlm-test-with-remote nil
    (let* ((emacs (expand-file-name invocation-name invocation-directory))
           (process (rlm-test-spawn "batch" emacs "-Q" "--batch"
                                    "-L" (expand-file-name "elisp" rlm-test-root)
                                    "--eval" (format rlm-test-digs rlm-socket rlm-socket)))
           (socket (rlm-test-await (and (string-match "^\\(/.*\\)\n" (rlm-test-output process))
                                        (match-string 1 (rlm-test-output process))))))
      (should (rlm--listens-p socket))
      (rlm-test-kill process)
      (rlm-test-await (not (rlm--listens-p socket)))
      (rlm-test-await (not (file-exists-p (file-name-directory socket)))))))

(ert-deftest rlm-remote-a-tramp-buffer ()
  "The text of a file on another machine is asked of the daemon here."
  (rlm-test-with-daemon (:scripts '(("root" . ("> the NEEDLE lies\nIt lies."))))
    (rlm-test-ssh)
    (let* ((tramp-verbose 0)
           (tramp-use-ssh-controlmaster-options nil)
           (rlm-strategy "direct")
           (enable-remote-dir-locals nil)
           (file (concat "/ssh:box:" (rlm-test-file "far.txt" "one\nthe NEEDLE lies\n")))
           (buffer (find-file-noselect file)))
      (unwind-protect
          (with-current-buffer buffer
            (let ((answer (rlm-test-ask "Where?")))
              (should (string-match-p "far\\.txt:2\\]\\] “the NEEDLE lies”" (rlm-test-complete answer)))))
        (kill-buffer buffer)
        (tramp-cleanup-all-connections)))))

(ert-deftest rlm-remote-two-daemons-at-once ()
  "A question goes to the daemon of its buffer, as do its follow-up and the lists."
  (rlm-test-with-daemon (:scripts '(("root" . ("From the one." "Again the one."))))
    (let ((one (rlm-socket-path))
          (process-environment (copy-sequence process-environment)))
      (dolist (name '("RUNTIME_DIR" "STATE_HOME" "CACHE_HOME" "CONFIG_HOME"))
        (let ((folder (expand-file-name (concat "other-" name) rlm-test-folder)))
          (make-directory folder)
          (set-file-modes folder #o700)
          (setenv (concat "XDG_" name) folder)))
      (rlm-test-model-server :scripts '(("root" . ("From the other." "Again the other."))))
      (rlm-test-daemon)
      (let ((other (rlm-socket-path)))
        (rlm-test-with-notes "text\n"
          (setq-local rlm-socket one)
          (let ((first (rlm-test-ask "One?")))
            (rlm-test-complete first)
            (setq-local rlm-socket other)
            (let* (second
                   (calls (rlm-test-calls (lambda ()
                                            (setq second (rlm-test-ask "Other?"))
                                            (rlm-test-complete second)))))
              ;; Not asked in vain of a text that only the one has.
              (should (= 1 (seq-count (lambda (call) (equal "run/start" (car call))) calls)))
              (should (string-match-p "From the one\\." (rlm-test-complete first)))
              (should (string-match-p "From the other\\." (rlm-test-complete second)))
              (with-current-buffer first
                (let ((next (rlm-follow-up rlm--run "And?")))
                  (rlm-wait next rlm-test-patience)
                  (should (equal "Again the one." (rlm-run-answer next))))
                (save-window-excursion
                  (rlm-list-runs)
                  (should-not (equal "*rlm runs*" (buffer-name)))
                  (rlm-test-await (= 2 (length tabulated-list-entries)))
                  (should (equal one (rlm-socket-path))))))))))))

(provide 'rlm-remote-test)
;;; rlm-remote-test.el ends here
