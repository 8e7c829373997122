;;; rlm-doctor.el --- Is all well? -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; `rlm-doctor' looks at this end, at the connection, and has the daemon
;; look at itself; each finding comes with what to do.  `rlm-manual'
;; opens the manual.

;;; Code:

(require 'rlm-ask)

(defun rlm--doctor-line (mark name text &optional hint)
  "Return a line with MARK for NAME: TEXT, and what to do, HINT."
  (concat (pcase mark
            ('ok (propertize "  ok  " 'font-lock-face 'success))
            ('better (propertize " note " 'font-lock-face 'warning))
            (_ (propertize "WRONG " 'font-lock-face 'error)))
          (format "%-22s %s\n" name text)
          (unless (string-empty-p (or hint ""))
            (format "%s%s\n" (make-string 29 ?\s) hint))))

(defun rlm--doctor-here ()
  "Return lines on what this Emacs has."
  (concat
   (rlm--doctor-line 'ok "Emacs" (format "%s, rlm.el %s" emacs-version rlm-version))
   (rlm--doctor-line (if (functionp 'json-serialize) 'ok 'wrong)
                     "JSON" (if (functionp 'json-serialize) "built in" "missing")
                     (unless (functionp 'json-serialize)
                       "Emacs must be built with JSON support."))
   (rlm--doctor-line (if (executable-find (car rlm-daemon-command)) 'ok 'better)
                     "program" (or (executable-find (car rlm-daemon-command))
                                   (format "no %s found" (car rlm-daemon-command)))
                     (unless (executable-find (car rlm-daemon-command))
                       "Needed only if the daemon is to be started from Emacs; see rlm-daemon-command."))
   (rlm--doctor-line (if (executable-find "pdftotext") 'ok 'better)
                     "PDF" (or (executable-find "pdftotext") "no pdftotext")
                     (unless (executable-find "pdftotext")
                       "To ask of a PDF, install poppler-utils."))))

(defun rlm--doctor-daemon (result)
  "Return lines on what the daemon found of itself: RESULT, of daemon/doctor."
  (mapconcat (lambda (check)
               (rlm--doctor-line (cond ((rlm--true-p (plist-get check :ok)) 'ok)
                                       ((rlm--true-p (plist-get check :needed)) 'wrong)
                                       (t 'better))
                                 (plist-get check :name)
                                 (plist-get check :message)
                                 (plist-get check :hint)))
             (plist-get result :checks) ""))

(defvar rlm-doctor-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "?") #'describe-mode)
    map)
  "Keymap of `rlm-doctor-mode'.")

(define-derived-mode rlm-doctor-mode special-mode "RLM-Doctor"
  "Mode of the buffer that says whether all is well.

\\{rlm-doctor-mode-map}"
  (setq-local font-lock-defaults '(nil t))
  (setq-local word-wrap t)
  (setq-local wrap-prefix (make-string 29 ?\s)) ; below what is found
  (setq-local revert-buffer-function (lambda (&rest _) (rlm-doctor))))

;;;###autoload
(defun rlm-doctor ()
  "Look whether Emacs, the connection and the daemon are well.
Each thing that is not comes with what to do."
  (interactive)
  (let ((buffer (get-buffer-create "*rlm doctor*"))
        (socket (rlm-socket-path)))
    (with-current-buffer buffer
      (rlm-doctor-mode)
      (let ((inhibit-read-only t))
        (erase-buffer)
        (insert (rlm--doctor-here))))
    (pop-to-buffer buffer)
    (condition-case err
        (rlm-call "daemon/doctor" nil :socket socket
                  :success (lambda (result)
                             (rlm--doctor-say
                              buffer
                              (rlm--doctor-line
                               'ok "connection"
                               (let ((server (rlm--client-server (rlm--client socket))))
                                 (format "rlmd %s, protocol %s, at %s"
                                         (plist-get server :version)
                                         (plist-get server :protocol) socket)))
                              (rlm--doctor-daemon result)))
                  :failure (lambda (error)
                             (rlm--doctor-say
                              buffer
                              (rlm--doctor-line 'wrong "connection"
                                                (plist-get error :message)
                                                (plist-get error :hint)))))
      (user-error
       (rlm--doctor-say buffer (rlm--doctor-line 'wrong "connection"
                                                 (error-message-string err)
                                                 "Start it with rlmd, or systemctl --user start rlmd.socket"))))))

(defun rlm--doctor-say (buffer &rest lines)
  "Add LINES to BUFFER."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (let ((inhibit-read-only t))
        (save-excursion
          (goto-char (point-max))
          (mapc #'insert lines))))))

;;;###autoload
(defun rlm-manual ()
  "Read the manual."
  (interactive)
  (condition-case nil
      (info "(rlm)")
    (error (user-error "The manual is not installed; its source is docs/rlm.texi"))))

(provide 'rlm-doctor)
;;; rlm-doctor.el ends here
