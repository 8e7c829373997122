;;; rlm-cell.el --- Run Python in a session -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A cell is Python that runs in the cage of a session, where `context',
;; `search' and the names of earlier cells are.  Here a person writes
;; one.  The daemon keeps it as a run of its own.

;;; Code:

(require 'rlm-rpc)
(require 'rlm-run)
(require 'rlm-ask)

(defvar python-indent-guess-indent-offset)

(defvar-local rlm--cell-session nil "The session in which the cell runs.")
(defvar-local rlm--cell-contexts nil "Names of the contexts that the cell sees.")
(defvar-local rlm--cell-socket nil "The daemon's socket.")
(defvar-local rlm--cell-run nil "Id of the run of the cell that is running.")

(defun rlm--cell-execute (code session contexts socket success failure)
  "Run CODE in SESSION over CONTEXTS at SOCKET; return the id of its run.
SUCCESS is called with the result of repl/execute, FAILURE with an
error."
  (let ((id (rlm--new-id)))
    (rlm-call "repl/execute"
              (append (list :code code :run_id id :contexts (vconcat contexts))
                      (when session (list :session session)))
              :socket socket :success success :failure failure)
    id))

(defun rlm--cell-result-text (result)
  "Return what a person is shown of RESULT, of repl/execute."
  (let ((output (string-trim-right (or (plist-get result :output) "")))
        (error (plist-get result :error))
        (final (plist-get result :final)))
    (string-join
     (delq nil (list (unless (string-empty-p output) output)
                     ;; The traceback is in the output already.
                     (and error (not (string-search (rlm--one-line error 60) output)) error)
                     (and final (concat "FINAL: " final))))
     "\n")))

;;;; The buffer

(defvar rlm-cell-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-c") #'rlm-cell-run)
    (define-key map (kbd "C-c C-k") #'rlm-cell-cancel)
    (define-key map (kbd "C-c ?") #'describe-mode)
    map)
  "Keymap of `rlm-cell-mode'.")

(define-minor-mode rlm-cell-mode
  "Minor mode of buffers whose Python runs in a session of rlmd.

\\{rlm-cell-mode-map}"
  :lighter " Cell"
  (when rlm-cell-mode
    (setq header-line-format
          '(:eval (rlm--cell-header)))))

(defun rlm--cell-header ()
  "Return the header line of a cell's buffer."
  (replace-regexp-in-string
   "%" "%%"
   (substitute-command-keys
    (if rlm--cell-run
        "\\<rlm-cell-mode-map> running · \\[rlm-cell-cancel] stops it"
      (format "\\<rlm-cell-mode-map> session %s · \\[rlm-cell-run] runs it" rlm--cell-session)))))

;;;###autoload
(defun rlm-cell-edit (code session contexts &optional socket)
  "Edit CODE, to be run in SESSION over CONTEXTS, names, at SOCKET.
Without a session a new one is named.  Interactively all are asked for."
  (interactive (list "" (read-string "Session (empty for a new one): ")
                     (list (rlm--read-context "Context: "))))
  (pop-to-buffer (generate-new-buffer "*rlm cell*"))
  (let ((python-indent-guess-indent-offset nil))
    (python-mode))
  (insert code)
  (goto-char (point-min))
  (setq rlm--cell-session (if (member session '(nil "")) (rlm--session-name) session)
        rlm--cell-contexts contexts
        rlm--cell-socket (or socket (rlm-socket-path)))
  (rlm-cell-mode 1))

(defun rlm-cell-run ()
  "Run the cell in the current buffer; its output is displayed."
  (interactive)
  (when rlm--cell-run
    (user-error "It is running"))
  (let ((buffer (current-buffer)))
    (setq rlm--cell-run
          (rlm--cell-execute
           (buffer-substring-no-properties (point-min) (point-max))
           rlm--cell-session rlm--cell-contexts rlm--cell-socket
           (lambda (result) (rlm--cell-done buffer (rlm--cell-result-text result)))
           (lambda (error) (rlm--cell-done buffer (rlm-error-text error))))))
  (force-mode-line-update))

(defun rlm--cell-done (buffer text)
  "The cell of BUFFER has ended; show TEXT."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (setq rlm--cell-run nil)
      (force-mode-line-update)))
  (with-current-buffer (get-buffer-create "*rlm output*")
    (unless (derived-mode-p 'special-mode)
      (special-mode))
    (let ((inhibit-read-only t))
      (erase-buffer)
      (insert (if (string-empty-p text) "(no output)" text) "\n")
      (goto-char (point-min)))
    (display-buffer (current-buffer) '(display-buffer-below-selected))))

(defun rlm-cell-cancel ()
  "Stop the cell that is running."
  (interactive)
  (unless rlm--cell-run
    (user-error "Nothing is running"))
  (rlm-call "run/cancel" (list :run_id rlm--cell-run :why "asked in Emacs")
            :socket rlm--cell-socket))

(provide 'rlm-cell)
;;; rlm-cell.el ends here
