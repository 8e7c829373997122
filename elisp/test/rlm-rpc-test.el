;;; rlm-rpc-test.el --- The connection, on a wire that misbehaves -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Each test of the first part is a failure of jsonrpc.el, or of its
;; use, that was met in Emacs 28.2 or 30.1.

;;; Code:

(require 'rlm-test)

;;;; On the wire

(ert-deftest rlm-rpc-a-failing-handler-loses-nothing ()
  "A reply that shares a chunk with a notification whose handler signals arrives.
Emacs 28 lost the rest of the chunk."
  (rlm-test-with-server
    (let ((rlm--notification-functions
           (list (lambda (&rest _) (error "Handler broke"))))
          (debug-on-error t))
      (should (plist-get (rlm-test-say
                          (list (rlm-test-notification "run/fact" :run_id "x" :seq 1)
                                "reply"
                                (rlm-test-notification "run/fact" :run_id "x" :seq 2)))
                         :said)))))

(ert-deftest rlm-rpc-one-failing-handler-stops-no-other ()
  "Every function that listens hears every notification."
  (rlm-test-with-server
    (let* ((heard 0)
           (rlm--notification-functions
            (list (lambda (&rest _) (error "Handler broke"))
                  (lambda (&rest _) (cl-incf heard)))))
      (rlm-test-say (list (rlm-test-notification "run/fact" :seq 1)
                          (rlm-test-notification "run/fact" :seq 2)
                          "reply"))
      (rlm-test-await (= heard 2)))))

(ert-deftest rlm-rpc-callbacks-never-wait ()
  "A synchronous request inside a callback is refused; it garbled the stream."
  (rlm-test-with-server
    (let ((refused nil) (done nil))
      (rlm-call "test/big" '(:chars 10)
                :success (lambda (_)
                           (condition-case err
                               (rlm-call-sync "test/big" '(:chars 10))
                             (error (setq refused (error-message-string err))))
                           (setq done t)))
      (rlm-test-await done)
      (should (string-match-p "must not wait" refused)))))

(ert-deftest rlm-rpc-requests-from-callbacks-work ()
  "A chain of asynchronous requests, each made in the callback of the last."
  (rlm-test-with-server
    (let ((left 50))
      (named-let next ()
        (rlm-call "test/big" '(:chars 3000)
                  :success (lambda (_) (when (> (cl-decf left) 0) (next)))))
      (rlm-test-await (= left 0)))))

(ert-deftest rlm-rpc-two-connections-do-not-mix ()
  "Two large replies at once on two connections both arrive whole.
Connections of one name shared the buffer and garbled each other."
  (rlm-test-with-server
    (let* ((other (expand-file-name "other.sock" rlm-test-folder))
           (sizes nil))
      (rlm-test-server other)
      (dolist (socket (list nil other))
        (rlm-call "test/big" '(:chars 3000000) :socket socket
                  :success (lambda (result)
                             (push (length (plist-get result :text)) sizes))))
      (rlm-test-await (= 2 (length sizes)))
      (should (equal sizes '(3000000 3000000))))))

(ert-deftest rlm-rpc-no-params-are-an-empty-object ()
  "Nil params go as {}, not as null."
  (rlm-test-with-server
    (rlm-test-answer "daemon/status" '(:version "9"))
    (rlm-call-sync "daemon/status" nil)
    (should (equal (rlm-test-seen "daemon/status") '(nil)))
    (let ((sent nil))
      (cl-letf* ((send (symbol-function 'process-send-string))
                 ((symbol-function 'process-send-string)
                  (lambda (process string) (setq sent string) (funcall send process string))))
        (rlm-call-sync "daemon/status" nil))
      (should (string-match-p "\"params\":{}" sent)))))

(ert-deftest rlm-rpc-the-wire-is-utf-8-with-carriage-returns ()
  "Non-ASCII text goes both ways unchanged, with its byte length."
  (rlm-test-with-server
    (let ((text "żółw 🐢 日本\r\n«é»"))
      (rlm-test-answer "x/y" (list :text text))
      (should (equal text (plist-get (rlm-call-sync "x/y" (list :text text)) :text)))
      (should (equal text (plist-get (car (rlm-test-seen "x/y")) :text))))))

(ert-deftest rlm-rpc-a-late-reply-harms-nothing ()
  "After a timeout the reply comes and is ignored; the connection goes on."
  (rlm-test-with-server
    (let ((failed nil))
      (rlm-call "test/late" '(:seconds 0.3) :timeout 0.1
                :success #'ignore
                :failure (lambda (error) (setq failed (rlm-error-text error))))
      (rlm-test-await failed)
      (should (string-match-p "did not answer" failed))
      (rlm-call-sync "test/late" '(:seconds 0.4))
      (should (rlm-call-sync "test/big" '(:chars 1))))))

(ert-deftest rlm-rpc-a-dead-server-fails-what-is-open ()
  "When the connection ends, open requests fail, and no buffer is left."
  (rlm-test-with-server
    (let ((failed nil) (lost nil))
      (rlm-call-sync "test/big" '(:chars 1))
      (let ((rlm--disconnect-functions (list (lambda (socket) (setq lost socket)))))
        (rlm-call "test/hang" nil :failure (lambda (error) (setq failed error)))
        (rlm-call "test/die" nil :failure #'ignore)
        (rlm-test-await (and failed lost)))
      (should (equal (plist-get failed :kind) "lost"))
      (should (equal lost (rlm-socket-path)))
      (should-not (seq-filter (lambda (buffer)
                                (string-match-p "\\*rlmd:" (buffer-name buffer)))
                              (buffer-list)))
      (should-not (rlm--client-live-p (rlm--client))))))

(ert-deftest rlm-rpc-a-new-connection-after-a-lost-one ()
  "The next request connects again."
  (rlm-test-with-server
    (rlm-call "test/die" nil :failure #'ignore)
    (rlm-test-await (eq 'idle (rlm--client-state (rlm--client))))
    (should (rlm-call-sync "test/big" '(:chars 1)))))

(ert-deftest rlm-rpc-the-handshake-may-take-its-time ()
  "The first answer has 30 s: systemd starts the daemon on our connecting."
  (rlm-test-with-home
    (make-directory (file-name-directory (rlm-socket-path)) t)
    (let ((silent (make-network-process :name "silent" :server t :family 'local
                                        :service (rlm-socket-path) :noquery t))
          (before (copy-sequence timer-list)))
      (unwind-protect
          (progn
            (rlm-call "daemon/status" nil :failure #'ignore)
            (let ((timer (car (seq-difference timer-list before #'eq))))
              (should (> (float-time (time-subtract (timer--time timer) nil)) 25))
              (cancel-timer timer)))
        (delete-process silent)))))

(ert-deftest rlm-rpc-a-refused-handshake-says-why ()
  "An error of initialize reaches those who wait, with its hint."
  (rlm-test-with-server
    (rlm-test-answer "initialize" '(:code -32602 :message "No such protocol."
                                          :data (:kind "invalid_params" :hint "Update rlm.el.")))
    (rlm-disconnect)
    (rlm-test-await (not (rlm--client-live-p (rlm--client))))
    (setf (rlm--client-state (rlm--client)) 'idle)
    ;; The first queued answer is the server's own, the next ours.
    (rlm-call-sync "test/big" '(:chars 1))
    (rlm-disconnect)
    (rlm-test-await (eq 'idle (rlm--client-state (rlm--client))))
    (let ((error nil))
      (rlm-call "test/big" '(:chars 1) :failure (lambda (e) (setq error e)))
      (rlm-test-await error)
      (should (equal (rlm-error-text error) "No such protocol.  Update rlm.el.")))))

(ert-deftest rlm-rpc-quitting-a-send-closes-the-connection ()
  "C-g while a large message is on its way: its answer would be lost, so the connection goes, and the next is whole."
  (rlm-test-with-server
    (rlm-call-sync "test/big" '(:chars 1))
    (let* ((process (jsonrpc--process (rlm--client-connection (rlm--client))))
           (failed nil))
      (cl-letf (((symbol-function 'jsonrpc-async-request) (lambda (&rest _) (signal 'quit nil))))
        (rlm-call "test/big" '(:chars 1) :failure (lambda (error) (setq failed error))))
      (should (equal "lost" (plist-get failed :kind)))
      (should-not (process-live-p process))
      (should (= 10 (length (plist-get (rlm-call-sync "test/big" '(:chars 10)) :text)))))))

(ert-deftest rlm-rpc-quitting-a-wait-leaves-the-connection ()
  "C-g while one waits for an answer comes through at once; what comes later harms nothing."
  (rlm-test-with-server
    (rlm-call-sync "test/big" '(:chars 1))
    (let ((process (jsonrpc--process (rlm--client-connection (rlm--client)))))
      (run-at-time 0.1 nil (lambda () (setq quit-flag t)))
      (should (eq 'quit (condition-case err
                            (rlm-call-sync "test/late" '(:seconds 1))
                          (quit (car err)))))
      (rlm-call-sync "test/late" '(:seconds 1.5))
      (should (eq process (jsonrpc--process (rlm--client-connection (rlm--client)))))
      (should (rlm-call-sync "test/big" '(:chars 1))))))

(ert-deftest rlm-rpc-what-belongs-to-an-old-connection-is-over ()
  "A timer, an answer or an end of a handshake that is given up does nothing to the connection of now."
  (rlm-test-with-home
    (make-directory (file-name-directory (rlm-socket-path)) t)
    (let ((silent (make-network-process :name "silent" :server t :family 'local
                                        :service (rlm-socket-path) :noquery t))
          handshake)
      (cl-letf* ((request (symbol-function 'jsonrpc-async-request))
                 ((symbol-function 'jsonrpc-async-request)
                  (lambda (&rest arguments)
                    (setq handshake (nthcdr 3 arguments))
                    (apply request arguments))))
        (rlm-call "daemon/status" nil :failure #'ignore))
      (delete-process silent)
      (delete-file (rlm-socket-path))
      (rlm-disconnect)
      (rlm-test-await (eq 'idle (rlm--client-state (rlm--client))))
      (rlm-test-server)
      (rlm-call-sync "test/big" '(:chars 1))
      (funcall (plist-get handshake :timeout-fn))
      (funcall (plist-get handshake :error-fn) '(:code 1 :message "Late."))
      (funcall (plist-get handshake :success-fn) '(:methods ["late/method"]))
      (should (rlm--client-live-p (rlm--client)))
      (should-not (rlm--can-p "late/method"))
      (should (rlm-call-sync "test/big" '(:chars 1))))))

(ert-deftest rlm-rpc-no-warnings-of-old-or-new-slots ()
  "Making a connection warns of nothing, in any version."
  (when (get-buffer "*Warnings*")
    (kill-buffer "*Warnings*"))
  (rlm-test-with-server
    (rlm-call-sync "test/big" '(:chars 1))
    (should-not (get-buffer "*Warnings*"))))

(ert-deftest rlm-rpc-errors-keep-code-kind-and-hint ()
  "An error of the daemon arrives with all that it says."
  (rlm-test-with-server
    (rlm-test-answer "context/info" '(:code 1001 :message "No such context."
                                            :data (:kind "not_found" :hint "See the list.")))
    (let ((error nil))
      (rlm-call "context/info" '(:name "x") :failure (lambda (e) (setq error e)))
      (rlm-test-await error)
      (should (equal error '(:code 1001 :message "No such context."
                                   :hint "See the list." :kind "not_found"))))
    (should-error (rlm-call-sync "context/info" '(:name "x")) :type 'user-error)))

;;;; Where the daemon is, or is not

(defun rlm-test-connect-error ()
  "Return what the user is told when the daemon cannot be reached."
  (cadr (should-error (rlm-call "daemon/status" nil) :type 'user-error)))

(ert-deftest rlm-rpc-no-daemon-is-said-plainly ()
  "Without a socket, or with a stale one, and no leave to start: a `user-error'."
  (rlm-test-with-home
    (should (string-match-p "No rlmd listens" (rlm-test-connect-error)))
    (make-directory (file-name-directory (rlm-socket-path)) t)
    (delete-process (make-network-process :name "stale" :server t :family 'local
                                          :service (rlm-socket-path)))
    (should (file-exists-p (rlm-socket-path)))
    (should (string-match-p "No rlmd listens" (rlm-test-connect-error)))
    (should-not (rlm--client-waiting (rlm--client)))))

(ert-deftest rlm-rpc-a-path-too-long-is-said-plainly ()
  "A socket's name has at most 107 bytes; Emacs says it in riddles."
  (rlm-test-with-home
    (let ((rlm-socket (concat "/tmp/" (make-string 120 ?x))))
      (should (string-match-p "107 bytes" (rlm-test-connect-error))))))

(ert-deftest rlm-rpc-a-remote-default-directory-does-not-matter ()
  "With a TRAMP `default-directory' nothing goes to the remote host."
  (rlm-test-with-server
    (let ((default-directory "/ssh:nowhere.invalid:/tmp/")
          (rlm-socket (rlm-socket-path)))
      (should (rlm-call-sync "test/big" '(:chars 1))))))

(ert-deftest rlm-rpc-the-socket-follows-the-environment ()
  "XDG_RUNTIME_DIR counts if absolute, as with the daemon."
  (let ((process-environment (cons "XDG_RUNTIME_DIR=/run/user/7" process-environment))
        (rlm-socket nil))
    (should (equal (rlm-socket-path) "/run/user/7/rlmd/rlmd.sock"))
    (setenv "XDG_RUNTIME_DIR" "here")
    (should (equal (rlm-socket-path) (format "/tmp/rlmd-%d/rlmd.sock" (user-uid))))
    (setenv "XDG_RUNTIME_DIR" nil)
    (should (equal (rlm-socket-path) (format "/tmp/rlmd-%d/rlmd.sock" (user-uid))))
    (let ((rlm-socket "~/x.sock"))
      (should (equal (rlm-socket-path) (expand-file-name "~/x.sock"))))))

;;;; Starting it

(ert-deftest rlm-start-the-daemon-outlives-emacs ()
  "A daemon that we start is in a session of its own, knows little, and serves."
  (rlm-test-with-home
    (let* ((rlm-auto-start 'direct)
           (rlm-daemon-command (list rlm-test-python "-m" "rlmd"))
           (process-environment (cons "SECRET_KEY=s3cret" process-environment))
           (pid (plist-get (rlm-call-sync "daemon/status" nil) :pid)))
      (unwind-protect
          (let ((attributes (process-attributes pid)))
            (should (= pid (alist-get 'sess attributes)))
            (should-not (= (emacs-pid) (alist-get 'ppid attributes)))
            (with-temp-buffer
              (insert-file-contents-literally (format "/proc/%d/environ" pid))
              (should (search-forward "XDG_STATE_HOME=" nil t))
              (goto-char (point-min))
              (should-not (search-forward "s3cret" nil t))))
        (signal-process pid 'KILL)
        (rlm-test-await (null (process-attributes pid)))))))

(ert-deftest rlm-start-a-daemon-that-will-not-run-is-told-at-once ()
  "Its status and last words reach those who wait."
  (rlm-test-with-home
    (let ((rlm-auto-start 'direct)
          (rlm-daemon-command '("sh" "-c" "echo config.toml: unknown key; exit 78"))
          (error nil))
      (rlm-call "daemon/status" nil :failure (lambda (e) (setq error e)))
      (should (eq 'starting (rlm--client-state (rlm--client))))
      (rlm-test-await error)
      (should (string-match-p "status 78" (plist-get error :message)))
      (should (string-match-p "unknown key" (plist-get error :hint)))
      (should (eq 'idle (rlm--client-state (rlm--client)))))))

(ert-deftest rlm-start-no-program-is-a-user-error ()
  "With nothing to start the command fails at once, with the option to set."
  (rlm-test-with-home
    (let ((rlm-auto-start 'direct)
          (rlm-daemon-command '("no-such-program-rlmd")))
      (should (string-match-p "rlm-daemon-command" (rlm-test-connect-error)))
      (should (eq 'idle (rlm--client-state (rlm--client)))))))

(ert-deftest rlm-start-systemd-comes-first ()
  "Where the user manager has the unit, it is started, and nothing else."
  (rlm-test-with-home
    (rlm-test-fake-systemctl "loaded")
    (let ((rlm-auto-start t)
          (rlm-daemon-command '("no-such-program-rlmd"))
          (called (expand-file-name "called" rlm-test-folder))
          (done nil))
      (rlm-call "daemon/status" nil :success (lambda (_) (setq done t)))
      (rlm-test-await (and (file-exists-p called)
                           (string-match-p "start rlmd.socket" (rlm-test-slurp called))))
      (rlm-test-server)                 ; what the unit would do
      (rlm-test-answer "daemon/status" '(:version "1"))
      (should (rlm-call-sync "daemon/status" nil)))))

(ert-deftest rlm-start-a-masked-unit-is-a-no ()
  "A masked unit means that no daemon is started."
  (rlm-test-with-home
    (rlm-test-fake-systemctl "masked")
    (let ((rlm-auto-start t)
          (rlm-daemon-command '("sh" "-c" "touch started"))
          (error nil))
      (rlm-call "daemon/status" nil :failure (lambda (e) (setq error e)))
      (rlm-test-await error)
      (should (string-match-p "masked" (rlm-error-text error))))))

(defun rlm-test-fake-systemctl (state)
  "Put a systemctl on the path that says STATE of the unit and notes its calls."
  (let ((program (expand-file-name "systemctl" rlm-test-folder)))
    (make-directory (expand-file-name "systemd" (getenv "XDG_RUNTIME_DIR")))
    (with-temp-file program
      (insert (format "#!/bin/sh\necho \"$*\" >>%s/called\ncase \"$*\" in *LoadState*) echo %s;; esac\n"
                      rlm-test-folder state)))
    (set-file-modes program #o755)
    (setq exec-path (cons rlm-test-folder exec-path))))

(defun rlm-test-slurp (file)
  "Return the text of FILE."
  (with-temp-buffer (insert-file-contents file) (buffer-string)))

(provide 'rlm-rpc-test)
;;; rlm-rpc-test.el ends here
