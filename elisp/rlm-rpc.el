;;; rlm-rpc.el --- Talk to rlmd over its socket -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; One connection for each socket, kept open, over the built-in
;; jsonrpc.el.  This file knows how to connect without making anyone
;; wait, and how to send a request.
;; It knows nothing of runs, contexts or buffers: notifications go to
;; `rlm--notification-functions', a lost connection to
;; `rlm--disconnect-functions'.
;;
;; Rules that keep Emacs alive, each learnt from a failure:
;;
;; - Nothing waits.  `rlm-call' returns at once; a connection that is
;;   still being made queues what is asked of it.  Only commands may
;;   use `rlm-call-sync', and it refuses to work inside a callback:
;;   there it would corrupt the stream on Emacs 28.
;; - A callback never signals.  On Emacs 28 a signal in the process
;;   filter loses the rest of the chunk, replies included.
;; - Two connections never share a name, for they would share the
;;   process buffer and garble each other.

;;; Code:

(require 'rlm-base)
(require 'rlm-start)
(require 'cl-lib)
(require 'jsonrpc)

(declare-function rlm--tunnel-live-p "rlm-tunnel" (tunnel))
(declare-function rlm--tunnel-close "rlm-tunnel" (tunnel))
(declare-function rlm--tunnel-open "rlm-tunnel" (remote success failure))
(declare-function rlm--tunnel-probe "rlm-tunnel" (remote socket success failure))
(declare-function rlm--tunnel-nobody "rlm-tunnel" (remote))
(declare-function rlm--tunnel-socket "rlm-tunnel" (tunnel) t)

(defcustom rlm-log-events nil
  "Whether to keep a buffer of all messages to and from the daemon.
It holds the texts that were sent.  Takes effect at the next
connection."
  :type 'boolean
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

;; A daemon that systemd starts on our connecting answers only once it
;; is up; jsonrpc.el's own 10 s are too short for a cold disk.
(defconst rlm--initialize-timeout 30
  "Seconds to wait for the daemon's first answer.")

(defconst rlm--protocol 2
  "The version of the protocol that this client speaks.")

(defvar rlm--notification-functions nil
  "Functions called with SOCKET, METHOD and PARAMS of each notification.")

(defvar rlm--disconnect-functions nil
  "Functions called with SOCKET when an open connection is lost.")

(defvar rlm--connect-functions nil
  "Functions called with SOCKET when a connection is ready.")

;;;; A client: one socket, what is known of its daemon, who waits

(cl-defstruct (rlm--client (:constructor rlm--client-make) (:copier nil))
  "The state of our dealings with the daemon at one socket."
  (socket nil :documentation "Absolute file name, or a remote one.")
  (state 'idle :documentation "One of idle, starting, connecting, ready.")
  (tunnel nil :documentation "What carries to SOCKET if that is on another machine.")
  (connection nil :documentation "The jsonrpc connection, when connecting or ready.")
  (server nil :documentation "What `initialize' answered, a plist, when ready.")
  (waiting nil :documentation "List of (SUCCESS . FAILURE), last first."))

(defvar rlm--clients (make-hash-table :test #'equal)
  "Hash table from socket names to their `rlm--client'.")

(defvar rlm--connection-count 0
  "Counts connections, so that each has a name of its own.")

(defun rlm--client (&optional socket)
  "Return the client for SOCKET, by default the configured one."
  (let ((socket (or socket (rlm-socket-path))))
    (or (gethash socket rlm--clients)
        (puthash socket (rlm--client-make :socket socket) rlm--clients))))

(defun rlm--client-live-p (client)
  "Return non-nil if CLIENT is connected and past the handshake."
  (and (eq (rlm--client-state client) 'ready)
       (jsonrpc-running-p (rlm--client-connection client))))

(defun rlm--can-p (method &optional socket)
  "Return non-nil if the daemon at SOCKET, to which we are connected, has METHOD."
  (seq-contains-p (plist-get (rlm--client-server (rlm--client socket)) :methods)
                  method))

(defun rlm--when-ready (client success failure)
  "Call SUCCESS with no argument once CLIENT is ready, else FAILURE with an error.
If it is ready now, SUCCESS is called before this returns.  A
daemon that is not there and cannot be started is a `user-error'."
  (if (rlm--client-live-p client)
      (funcall success)
    (push (cons success failure) (rlm--client-waiting client))
    (unless (memq (rlm--client-state client) '(starting connecting))
      (condition-case err
          (rlm--open client)
        (error (pop (rlm--client-waiting client))
               (signal (car err) (cdr err)))))))

(defun rlm--open (client)
  "Connect CLIENT, to another machine or to a daemon here."
  (if (file-remote-p (rlm--client-socket client))
      (rlm--open-there client)
    (rlm--open-here client)))

(defun rlm--open-there (client)
  "Connect CLIENT to the daemon on another machine, by a tunnel."
  (require 'rlm-tunnel)
  (let ((remote (rlm--client-socket client))
        (success (lambda () (rlm--started client)))
        (failure (lambda (error) (rlm--refused client error))))
    (if (rlm--tunnel-live-p (rlm--client-tunnel client))
        (rlm--tunnel-probe remote (rlm--client-address client) success failure)
      (rlm--tunnel-close (rlm--client-tunnel client))
      (setf (rlm--client-tunnel client) (rlm--tunnel-open remote success failure)))
    (setf (rlm--client-state client) 'starting)))

(defun rlm--client-address (client)
  "Return the socket on this machine that leads to CLIENT's daemon."
  (if-let ((tunnel (rlm--client-tunnel client)))
      (rlm--tunnel-socket tunnel)
    (rlm--client-socket client)))

(defun rlm--open-here (client)
  "Connect CLIENT, starting the daemon if need be and allowed."
  (let ((problem (rlm--try-connect client))
        (socket (rlm--client-socket client)))
    (cond
     ((null problem))
     ((not (plist-get problem :absent))
      (user-error "%s" (rlm-error-text problem)))
     ((null rlm-auto-start)
      (user-error "No rlmd listens at %s; start it, or set `rlm-auto-start'"
                  (abbreviate-file-name socket)))
     (t
      (rlm--start-daemon socket
                         (lambda () (rlm--started client))
                         (lambda (error) (rlm--refused client error)))
      (setf (rlm--client-state client) 'starting)))))

(defun rlm--started (client)
  "The daemon that was started for CLIENT listens."
  (when (eq (rlm--client-state client) 'starting)
    (when-let ((problem (rlm--try-connect client)))
      (rlm--refused client problem))))

(defun rlm--try-connect (client)
  "Connect CLIENT and begin the handshake.
Return nil, or the error that came; its :absent is non-nil if no
daemon listens."
  (condition-case err
      (progn
        (rlm--check-owner (rlm--client-address client))
        (setf (rlm--client-connection client)
              (rlm--make-connection (rlm--client-socket client) (rlm--client-address client)
                                    (lambda (_) (rlm--guarded #'rlm--lost client))))
        (rlm--check-open (rlm--client-connection client))
        (setf (rlm--client-state client) 'connecting)
        (rlm--handshake client)
        nil)
    (error
     (let ((absent (or (eq (car err) 'file-missing)
                       (member "Connection refused" (cdr err)))))
       (setf (rlm--client-state client) 'idle
             (rlm--client-connection client) nil)
       (append (list :absent absent)
               (if (file-remote-p (rlm--client-socket client))
                   (rlm--closed-at-once client)
                 (rlm--refusal client err)))))))

(defun rlm--refusal (client err)
  "Return the error of CLIENT, whose connecting signalled ERR."
  (rlm--problem (format "Cannot connect to rlmd at %s: %s."
                        (rlm--client-socket client) (rlm--reason err))
                (if (string-match-p "too long" (rlm--reason err))
                    "A socket's name may have 107 bytes; see `rlm-socket'."
                  "Is `rlm-socket' right?")))

(defun rlm--check-owner (socket)
  "Signal an error if SOCKET is another user's, who would read our texts."
  (let* ((file-name-handler-alist nil)
         (owner (file-attribute-user-id (file-attributes socket))))
    (unless (memq owner (list nil 0 (user-uid)))
      (error "The socket belongs to user %s, not to you (%d)" owner (user-uid)))))

(defun rlm--check-open (connection)
  "Signal an error if the other end of CONNECTION has closed it already.
So does ssh where no daemon is.  To write to it then would end an
Emacs that runs in batch mode, by the signal SIGPIPE."
  (let ((process (jsonrpc--process connection)))
    (accept-process-output process 0 nil 1) ; no timers meanwhile
    (unless (process-live-p process)
      (error "it was closed at once"))))

(defun rlm--reason (err)
  "Return the reason that the signalled ERR gives, without its frame."
  (or (seq-find #'stringp (cddr err)) (error-message-string err)))

(defun rlm--make-connection (socket address on-shutdown)
  "Return a new jsonrpc connection to SOCKET by ADDRESS; ON-SHUTDOWN as there."
  (let* ((name (format "rlmd:%d" (cl-incf rlm--connection-count)))
         (default-directory temporary-file-directory) ; not a remote one
         (process (make-network-process
                   :name name :family 'local :service address
                   ;; Else EOL detection may eat the header's \r.
                   :coding 'utf-8-emacs-unix :noquery t)))
    (condition-case err
        (apply #'make-instance 'jsonrpc-process-connection
               :name name
               :process process
               :notification-dispatcher
               (lambda (_connection method params)
                 (rlm--run-guarded 'rlm--notification-functions
                                   socket method params))
               :on-shutdown (lambda (connection)
                              (rlm--forget-buffers name)
                              (funcall on-shutdown connection))
               ;; Tested by slot: 28 lacks the one, 30 warns of the other.
               (if (slot-exists-p 'jsonrpc-process-connection
                                  '-events-buffer-config)
                   `(:events-buffer-config
                     (:size ,(if rlm-log-events 2000000 0) :format full))
                 `(:events-buffer-scrollback-size
                   ,(if rlm-log-events 2000000 0))))
      (error (delete-process process)
             (signal (car err) (cdr err))))))

(defun rlm--forget-buffers (name)
  "Kill the buffers that jsonrpc.el made for the connection NAME."
  (dolist (format (if rlm-log-events
                      '(" *%s output*" " *%s stderr*")
                    '(" *%s output*" " *%s stderr*" "*%s events*")))
    (when-let ((buffer (get-buffer (format format name))))
      (kill-buffer buffer))))

(defun rlm--handshake (client)
  "Say `initialize' on CLIENT's fresh connection."
  (let ((connection (rlm--client-connection client)))
    (jsonrpc-async-request
     connection :initialize
     (list :protocol rlm--protocol
           :client (list :name "rlm.el" :version rlm-version))
     :timeout rlm--initialize-timeout
     :success-fn
     (lambda (server)
       (when (eq connection (rlm--client-connection client))
         (rlm--guarded #'rlm--ready client server)))
     :error-fn
     (lambda (object)
       (when (eq connection (rlm--client-connection client))
         (rlm--guarded #'rlm--refused client
                       (if (eql (plist-get object :code) -1) ; jsonrpc.el's own
                           (rlm--closed-at-once client)
                         (rlm--error-from-daemon object)))))
     :timeout-fn
     (lambda ()
       (when (eq connection (rlm--client-connection client))
         (rlm--guarded
          #'rlm--refused client
          (rlm--problem
           (format "rlmd did not answer in %d s." rlm--initialize-timeout)
           "Look at it with: journalctl --user -u rlmd")))))))

(defun rlm--ready (client server)
  "CLIENT is connected to SERVER, its `initialize' result."
  (setf (rlm--client-state client) 'ready
        (rlm--client-server client) server)
  (let ((waiting (nreverse (rlm--client-waiting client))))
    (setf (rlm--client-waiting client) nil)
    (dolist (pair waiting)
      (rlm--guarded (car pair))))
  (rlm--run-guarded 'rlm--connect-functions (rlm--client-socket client)))

(defun rlm--refused (client error)
  "CLIENT cannot be made ready, for ERROR."
  (let ((waiting (nreverse (rlm--client-waiting client)))
        (connection (rlm--client-connection client)))
    (setf (rlm--client-state client) 'idle
          (rlm--client-connection client) nil
          (rlm--client-server client) nil
          (rlm--client-waiting client) nil)
    (when connection
      (delete-process (jsonrpc--process connection)))
    (dolist (pair waiting)
      (rlm--guarded (cdr pair) error))))

(defun rlm--lost (client)
  "CLIENT's connection has ended."
  (pcase (rlm--client-state client)
    ('ready
     (setf (rlm--client-state client) 'idle
           (rlm--client-connection client) nil)
     (rlm--run-guarded 'rlm--disconnect-functions (rlm--client-socket client)))
    ('connecting
     (rlm--refused client (rlm--closed-at-once client)))))

(defun rlm--closed-at-once (client)
  "Return the error of CLIENT's connection that ended before a word was said."
  (let ((socket (rlm--client-socket client)))
    (if (file-remote-p socket)
        (rlm--tunnel-nobody socket)
      (rlm--problem "rlmd closed the connection at once."
                    "Look at it with: journalctl --user -u rlmd"))))

(defun rlm-disconnect (&optional socket)
  "Close the connection to the daemon at SOCKET; its runs go on there."
  (interactive)
  (let ((client (rlm--client socket)))
    (when-let ((connection (rlm--client-connection client)))
      (delete-process (jsonrpc--process connection)))
    (when-let ((tunnel (rlm--client-tunnel client)))
      (rlm--tunnel-close tunnel)
      (setf (rlm--client-tunnel client) nil))))

;;;; Requests

(cl-defun rlm-call (method params &key success failure timeout socket)
  "Ask the daemon METHOD, a keyword or string, with PARAMS, a plist.
Return nil at once.  SUCCESS is called with the result, FAILURE
with an error (see `rlm-error-text'); with no FAILURE the error
becomes a message.  TIMEOUT is in seconds; none by default, for
the daemon answers or the connection breaks.  SOCKET names another
daemon than the configured one."
  (let ((client (rlm--client socket))
        (failure (or failure
                     (lambda (error) (message "rlm: %s" (rlm-error-text error))))))
    (rlm--when-ready client
                     (lambda ()
                       (rlm--send client method params success failure timeout))
                     failure)
    nil))

(defun rlm--send (client method params success failure timeout)
  "Send METHOD with PARAMS on CLIENT, which is ready.
SUCCESS, FAILURE and TIMEOUT as in `rlm-call'."
  (let ((default-directory temporary-file-directory))
    (condition-case err
        (jsonrpc-async-request
         (rlm--client-connection client)
         (if (keywordp method) method (intern (concat ":" method)))
         (or params (make-hash-table))
         :timeout timeout
         :success-fn (lambda (result)
                       (when success (rlm--guarded success result)))
         :error-fn (lambda (object)
                     (rlm--guarded
                      failure
                      (if (eql (plist-get object :code) -1)
                          (rlm--problem "The connection to rlmd was lost." nil "lost")
                        (rlm--error-from-daemon object))))
         :timeout-fn (lambda ()
                       (rlm--guarded
                        failure
                        (rlm--problem (format "rlmd did not answer %s in %s s."
                                              method timeout)))))
      ;; Half a message may be on its way, and jsonrpc.el would not
      ;; know its answer: this connection is of no more use.
      (quit (delete-process
             (jsonrpc--process (rlm--client-connection client)))
            (rlm--guarded failure (rlm--problem "Sending to rlmd was interrupted."
                                                nil "lost")))
      (error (rlm--guarded failure
                           (rlm--problem (format "Cannot send to rlmd: %s."
                                                 (error-message-string err))))))))

(cl-defun rlm-call-sync (method params &key (timeout 30) socket)
  "Ask the daemon METHOD with PARAMS, wait, and return the result.
For commands only, where the user waits anyway and can quit.
After TIMEOUT seconds, or if the daemon answers with an error,
signal a `user-error'.  METHOD, PARAMS and SOCKET as in `rlm-call'."
  (when rlm--in-callback
    (error "A callback must not wait for the daemon"))
  (let ((deadline (+ (float-time) timeout))
        (outcome nil))
    (rlm-call method params :socket socket
              :success (lambda (result) (setq outcome (list t result)))
              :failure (lambda (error) (setq outcome (list nil error))))
    (while (and (null outcome) (< (float-time) deadline))
      (accept-process-output nil 0.02))
    (pcase outcome
      (`(t ,result) result)
      (`(nil ,error) (user-error "%s" (rlm-error-text error)))
      (_ (user-error "No answer from rlmd in %s s" timeout)))))

(provide 'rlm-rpc)
;;; rlm-rpc.el ends here
