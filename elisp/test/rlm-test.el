;;; rlm-test.el --- What the tests of rlm.el share -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Each test gets what it needs fresh and leaves nothing: folders, a
;; daemon, model servers, a server that misbehaves.  Nothing sleeps for
;; a time; `rlm-test-await' waits for a state, and gives up loudly.

;;; Code:

(require 'ert)
(require 'rlm)
(require 'rlm-ask)
(require 'rlm-answer)

(defconst rlm-test-root
  (expand-file-name "../.." (file-name-directory (or load-file-name buffer-file-name)))
  "The repository.")

(defconst rlm-test-python
  (or (getenv "RLM_TEST_PYTHON")
      (expand-file-name ".venv/bin/python" rlm-test-root))
  "The Python that has rlmd.")

(defvar rlm-test-patience 60
  "Seconds after which a state is taken never to come; no measure.")

;; Else an error in a filter ends a batch Emacs 28 with a backtrace.
(setq backtrace-on-error-noninteractive nil)

(defmacro rlm-test-await (form &optional what)
  "Wait until FORM is non-nil and return it; fail, naming WHAT, if it never is."
  (declare (debug (form &optional form)))
  `(let ((deadline (+ (float-time) rlm-test-patience))
         value)
     (while (not (setq value ,form))
       (when (> (float-time) deadline)
         (ert-fail (list "Waited in vain" ,(or what `',form))))
       (accept-process-output nil 0.01))
     value))

(defvar rlm-test-folder nil
  "The folder of the test that runs; its name is short, for sockets.")

(defvar rlm-test-processes nil
  "Processes that the test has started.")

(defun rlm-test-spawn (name &rest command)
  "Start COMMAND as NAME in the repository; it is killed after the test."
  (let* ((default-directory rlm-test-root)
         (process (make-process :name name :command command :noquery t
                                :connection-type 'pipe
                                :buffer (generate-new-buffer (format " *%s*" name)))))
    (push process rlm-test-processes)
    process))

(defun rlm-test-output (process)
  "Return what PROCESS has written."
  (with-current-buffer (process-buffer process) (buffer-string)))

(defun rlm-test-kill (process &optional signal)
  "Kill PROCESS, by SIGNAL or else KILL, and wait until it is gone."
  (when (process-live-p process)
    (signal-process process (or signal 'KILL))
    (rlm-test-await (not (process-live-p process)))))

(defun rlm-test-call (function)
  "Call FUNCTION in an Emacs that knows no run, in folders of its own."
  (let* ((rlm-test-folder (make-temp-file "/tmp/rlm-" t))
         (rlm-test-processes nil)
         (rlm-socket nil)
         (rlm-auto-start nil)
         (rlm-reattach nil)
         (rlm--clients (make-hash-table :test #'equal))
         (rlm--runs (make-hash-table :test #'equal))
         (rlm--last-sources nil)
         (exec-path exec-path)
         (before (buffer-list))
         (process-environment
          (append (mapcar (lambda (pair)
                            (let ((folder (expand-file-name (cdr pair) rlm-test-folder)))
                              (make-directory folder)
                              (set-file-modes folder #o700)
                              (concat (car pair) "=" folder)))
                          '(("HOME" . "h") ("XDG_RUNTIME_DIR" . "r")
                            ("XDG_STATE_HOME" . "s") ("XDG_CACHE_HOME" . "c")
                            ("XDG_CONFIG_HOME" . "e")))
                  (list "LANG=C.UTF-8" (concat "PATH=" (getenv "PATH"))))))
    (unwind-protect
        (funcall function)
      (maphash (lambda (_socket client)
                 (when-let ((connection (rlm--client-connection client)))
                   (setf (rlm--client-state client) 'idle)
                   (delete-process (jsonrpc--process connection))))
               rlm--clients)
      (dolist (process rlm-test-processes)
        (rlm-test-kill process))
      (let ((rlm-on-kill 'detach)
            (kill-buffer-query-functions nil))
        (dolist (buffer (buffer-list))
          (unless (or (memq buffer before)
                      (string-match-p "\\` ?\\*\\(?:Messages\\|code-\\|Warnings\\)"
                                      (buffer-name buffer)))
            (with-current-buffer buffer (set-buffer-modified-p nil))
            (kill-buffer buffer))))
      ;; The processes of a daemon that was killed are gone a moment after it.
      (rlm-test-await (ignore-errors (delete-directory rlm-test-folder t) t)))))

(defmacro rlm-test-with-home (&rest body)
  "Run BODY in folders of its own, with no daemon."
  (declare (indent 0) (debug t))
  `(rlm-test-call (lambda () ,@body)))

;;;; The server that does what it is told

(defun rlm-test-server (&optional socket)
  "Start a scripted server at SOCKET, by default where the daemon would be."
  (let ((socket (or socket (rlm-socket-path))))
    (make-directory (file-name-directory socket) t)
    (prog1 (rlm-test-spawn "scripted" rlm-test-python
                           (expand-file-name "elisp/test/rlm-test-server.py" rlm-test-root)
                           socket)
      (rlm-test-await (rlm--listens-p socket)))))

(defmacro rlm-test-with-server (&rest body)
  "Run BODY with a scripted server in the daemon's place."
  (declare (indent 0) (debug t))
  `(rlm-test-with-home (rlm-test-server) ,@body))

(defun rlm-test-answer (method result)
  "From now on the scripted server answers RESULT, a plist, to METHOD.
A RESULT that begins with :code is an error."
  (rlm-call-sync "test/answer"
                 (list :method method
                       (if (eq (car-safe result) :code) :error :result)
                       (or result (make-hash-table)))))

(defun rlm-test-say (&rest writes)
  "Have the scripted server send WRITES, each a list of messages."
  (rlm-call-sync "test/say" (list :writes (vconcat (mapcar #'vconcat writes)))))

(defun rlm-test-notification (method &rest params)
  "Return the notification METHOD with PARAMS as a message."
  (list :jsonrpc "2.0" :method method :params params))

(defun rlm-test-seen (method)
  "Return the params of all requests for METHOD that the server has seen."
  (mapcar (lambda (request) (plist-get request :params))
          (seq-filter (lambda (request) (equal method (plist-get request :method)))
                      (plist-get (rlm-call-sync "test/seen" nil) :seen))))

;;;; The real daemon, with scripted models

(defun rlm-test-daemon ()
  "Start a daemon in the test's folders; return its process when it listens."
  (let ((process (rlm-test-spawn "rlmd" rlm-test-python "-m" "rlmd")))
    (rlm-test-await (or (rlm--listens-p (rlm-socket-path))
                        (not (process-live-p process))))
    (unless (process-live-p process)
      (ert-fail (list "rlmd does not run" (rlm-test-output process))))
    process))

(cl-defun rlm-test-model-server (&key scripts rules (slots 2) (latency 0)
                                      (roots '("box/root")))
  "Start a fake Ollama and configure the daemon to use it.
ROOTS are the models that may lead a run.  SCRIPTS is an alist from model names to lists of replies, each a
string or a plist as there; RULES a list of (REGEXP . REPLY)."
  (let* ((script (expand-file-name "script.json" rlm-test-folder))
         (process (progn
                    (rlm-test-write-json
                     script
                     (append
                      (list :models
                            (vconcat (mapcar (lambda (name) (list :name name :window 131072))
                                             '("root" "sub"))))
                      (when scripts
                        (list :scripts
                              (apply #'append
                                     (mapcar (lambda (pair)
                                               (list (intern (concat ":" (car pair)))
                                                     (vconcat (cdr pair))))
                                             scripts))))
                      (when rules
                        (list :rules
                              (vconcat (mapcar (lambda (rule)
                                                 (list :match (car rule) :reply (cdr rule)))
                                               rules))))))
                    (rlm-test-spawn "ollama" rlm-test-python "-m" "tests.fakes.ollama"
                                    "--port" "0" "--slots" (number-to-string slots)
                                    "--latency" (number-to-string latency)
                                    "--script" script)))
         (url (progn
                (rlm-test-await (string-match "listening on \\(http[^ \n]+\\)"
                                              (rlm-test-output process)))
                (match-string 1 (rlm-test-output process)))))
    (rlm-test-config
     (format "[roles]
root = [%s]
sub = [\"box/sub\"]
[hosts.box]
url = %S
provider = \"ollama\"
slots = %d
[hosts.box.models.root]
window = 32768
[hosts.box.models.sub]
window = 32768
" (mapconcat (lambda (root) (format "%S" root)) roots ", ") url slots))
    process))

(defun rlm-test-write-json (file object)
  "Write OBJECT to FILE as JSON."
  (with-temp-file file
    (set-buffer-multibyte nil)
    (insert (encode-coding-string (json-serialize object) 'utf-8))))

(defun rlm-test-config (text)
  "Write TEXT as the daemon's configuration."
  (let ((file (expand-file-name "rlmd/config.toml" (getenv "XDG_CONFIG_HOME"))))
    (make-directory (file-name-directory file) t)
    (with-temp-file file (insert text))))

(defmacro rlm-test-with-daemon (models &rest body)
  "Run BODY with a daemon whose models are as MODELS, keywords, say.
With nil there are none.  `daemon' and `models' are the processes."
  (declare (indent 1) (debug t))
  `(rlm-test-with-home
     (let* ((models ,(and models `(rlm-test-model-server ,@models)))
            (daemon (rlm-test-daemon)))
       (ignore models daemon)
       ,@body)))

(defun rlm-test-file (name text &optional coding)
  "Write TEXT in CODING, or else UTF-8, to a file NAME; return its full name."
  (let ((file (expand-file-name name rlm-test-folder))
        (coding-system-for-write (or coding 'utf-8-unix)))
    (write-region text nil file nil 'silent)
    file))

(defun rlm-test-answer-text (buffer)
  "Return the text of BUFFER."
  (with-current-buffer buffer
    (buffer-substring-no-properties (point-min) (point-max))))

;;;; Asking as a person does

(defconst rlm-test-slowly
  (list :text (concat "Slowly the answer is told: "
                      (mapconcat #'number-to-string (number-sequence 1 400) " ")
                      " and that is all.")
        :chunk 12 :pause 0.02)
  "A reply that takes some three seconds to tell.")

(defmacro rlm-test-with-notes (text &rest body)
  "Run BODY in a buffer notes.txt that holds TEXT."
  (declare (indent 1) (debug t))
  `(with-temp-buffer
     (rename-buffer "notes.txt" t)
     (insert ,text)
     ,@body))

(defun rlm-test-ask (question &optional source)
  "Ask QUESTION of SOURCE or the current buffer, as a person; return the answer buffer."
  (let ((before (buffer-list)))
    (save-window-excursion
      (rlm-query question (or source (current-buffer)) :display t))
    (seq-find (lambda (buffer)
                (and (not (memq buffer before))
                     (with-current-buffer buffer (derived-mode-p 'rlm-answer-mode))))
              (buffer-list))))

(defun rlm-test-run-of (buffer)
  "Return the run of the answer BUFFER."
  (buffer-local-value 'rlm--run buffer))

(defun rlm-test-complete (buffer)
  "Wait until the answer in BUFFER is complete; return its text."
  (rlm-test-await (with-current-buffer buffer
                    (and (rlm--run-settled-p rlm--run)
                         (null (rlm--stream-closing rlm--answer-stream)))))
  (rlm-test-answer-text buffer))

(defun rlm-test-await-words (buffer words)
  "Wait until BUFFER shows WORDS."
  (rlm-test-await (string-search words (rlm-test-answer-text buffer))
                  (list words 'in (rlm-test-answer-text buffer))))

(defun rlm-test-at-daemon (run)
  "Return what the daemon says of RUN."
  (plist-get (rlm-call-sync "run/show" (list :run_id (rlm-run-id run))) :run))

(defun rlm-test-state (run)
  "Return the daemon's word for the state of RUN."
  (plist-get (rlm-test-at-daemon run) :state))

(provide 'rlm-test)
;;; rlm-test.el ends here
