;;; rlm-status.el --- Lists of runs, contexts, sessions, hosts, money -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; What the daemon has, as tables: each is a mode with what can be done
;; with an entry, and how an entry becomes a row.

;;; Code:

(require 'rlm-again)
(require 'rlm-piece)
(require 'rlm-list)

(autoload 'rlm-trace "rlm-trace" nil t)
(autoload 'rlm-cell-edit "rlm-cell" nil t)

;;;; Runs

(rlm--define-list-mode rlm-runs-mode "RLM-Runs"
  "Mode of the list of runs."
  ("RET" rlm-runs-open)
  ("t" rlm-runs-trace)
  ("k" rlm-runs-cancel)
  (">" rlm-runs-continue)
  ("D" rlm-runs-delete))

;;;###autoload
(defun rlm-list-runs ()
  "List the runs that the daemon knows, newest first."
  (interactive)
  (rlm--list-open
   "*rlm runs*" #'rlm-runs-mode
   (rlm--list-make :method "run/list" :params '(:limit 500) :member :runs :row #'rlm--run-row
                   :columns [("Run" 8 t) ("State" 11 t) ("How" 7 t) ("Age" 9 nil)
                             ("Sub" 6 nil) ("Question" 0 t)])))

(defun rlm--run-row (info)
  "Return the row of the run INFO."
  (let ((state (plist-get info :state))
        (outcome (plist-get info :outcome)))
    (list (plist-get info :run_id)
          (vector (substring (plist-get info :run_id) 0 8)
                  (propertize (if (equal state "ended") (or outcome state) state)
                              'font-lock-face (pcase state
                                                ("ended" 'success)
                                                ((or "failed" "interrupted") 'error)
                                                ("cancelled" 'warning)
                                                (_ 'mode-line-emphasis)))
                  (plist-get info :strategy)
                  (rlm--age (plist-get info :created))
                  (number-to-string (plist-get info :sub_queries))
                  (concat (if (rlm--true-p (plist-get info :private)) "🔒 " "")
                          (rlm--one-line (rlm--info-question info) 200))))))

(defun rlm-runs-open ()
  "Show the answer of the run at point."
  (interactive)
  (rlm-open-run (rlm--list-id)))

(defun rlm-runs-trace ()
  "Watch the run at point at work."
  (interactive)
  (let* ((id (rlm--list-id))
         (known (rlm-run-find id)))
    (if known
        (rlm-trace known)
      (rlm-call "run/show" (list :run_id id)
                :success (lambda (result)
                           (let ((run (rlm--run-of-info id (plist-get result :run) nil)))
                             (puthash id run rlm--runs)
                             (rlm-trace run)
                             (rlm-run-attach run)))))))

(defun rlm-runs-cancel ()
  "Cancel the run at point."
  (interactive)
  (rlm--list-do "run/cancel" (list :run_id (rlm--list-id) :why "asked in Emacs")
                "Cancelled"))

(defun rlm-runs-continue ()
  "Let the run at point, which a limit has ended, go on; open its answer."
  (interactive)
  (let* ((id (rlm--list-id))
         (known (rlm-run-find id)))
    (if (and known (rlm--run-limit known))
        (progn (rlm-continue known)
               (rlm-open-run id))
      (rlm-call "run/continue" (list :run_id id :attach :json-false)
                :success (lambda (_) (rlm-open-run id))))))

(defun rlm-runs-delete ()
  "Delete the run at point, with its journal."
  (interactive)
  (rlm--need "run/delete")
  (let ((id (rlm--list-id)))
    (when (y-or-n-p "Delete this run with all that it found? ")
      (rlm--list-do "run/delete" (list :run_id id) "Deleted"))))

(defun rlm--need (method)
  "Signal a `user-error' unless the daemon has METHOD."
  (unless (rlm--can-p method)
    (user-error "This rlmd does not know %s" method)))

;;;; Contexts

(rlm--define-list-mode rlm-contexts-mode "RLM-Contexts"
  "Mode of the list of contexts."
  ("RET" rlm-contexts-peek)
  ("a" rlm-contexts-ask)
  ("s" rlm-contexts-search)
  ("u" rlm-contexts-update)
  ("=" rlm-contexts-diff)
  ("d" rlm-contexts-drop))

;;;###autoload
(defun rlm-list-contexts ()
  "List the contexts that the daemon has."
  (interactive)
  (rlm--list-open
   "*rlm contexts*" #'rlm-contexts-mode
   (rlm--list-make :method "context/list" :member :contexts :row #'rlm--context-row
                   :columns (vector '("Name" 24 t)
                                    (list "Characters" 12 (rlm--number-less-p 1) :right-align t)
                                    (list "Docs" 5 (rlm--number-less-p 2) :right-align t)
                                    '("Rev" 3 nil :right-align t)
                                    '("Kept" 4 t) '("Age" 9 nil) '("From" 0 t)))))

(defun rlm--context-row (info)
  "Return the row of the context INFO."
  (list (plist-get info :name)
        (vector (concat (plist-get info :name)
                        (if (rlm--true-p (plist-get info :private)) " 🔒" ""))
                (car (split-string (rlm--count (plist-get info :chars) "character")))
                (number-to-string (plist-get info :documents))
                (number-to-string (plist-get info :revision))
                (if (rlm--true-p (plist-get info :implicit)) "" "kept")
                (rlm--age (plist-get info :updated))
                (mapconcat (lambda (path) (abbreviate-file-name path))
                           (plist-get info :sources) ", "))))

(defun rlm-contexts-ask ()
  "Ask a question of the context at point."
  (interactive)
  (rlm-query-context (rlm--list-id)))

(defun rlm-contexts-drop ()
  "Erase the context at point, and all that was derived from it."
  (interactive)
  (let ((name (rlm--list-id)))
    (when (y-or-n-p (format "Erase the context %s and what was derived from it? " name))
      (rlm--list-do "context/drop" (list :name name) (format "Erased %s" name)))))

(defun rlm-contexts-peek ()
  "Show the beginning of the context at point."
  (interactive)
  (let ((name (rlm--list-id)))
    (rlm-call "context/info" (list :name name :documents_limit 1)
              :success
              (lambda (result)
                (let ((document (plist-get (elt (plist-get result :documents) 0) :name)))
                  (rlm-call "context/peek" (list :name name :document document :chars 20000)
                            :success (lambda (peek)
                                       (rlm--text-display
                                        (format "%s: %s, %s" name document
                                                (rlm--count (plist-get peek :document_chars)
                                                            "character"))
                                        (plist-get peek :text)))))))))

(defun rlm-contexts-search (query)
  "Search the context at point for QUERY."
  (interactive "sSearch for: ")
  (let ((name (rlm--list-id)))
    (rlm-call "context/search" (list :name name :query query)
              :success
              (lambda (result)
                (rlm--text-display
                 (format "%s: %s" name query)
                 (mapconcat (lambda (hit)
                              (concat (propertize (plist-get hit :label) 'font-lock-face 'bold)
                                      "\n" (plist-get hit :text) "\n"))
                            (plist-get result :hits) "\n"))))))

(defun rlm-contexts-update ()
  "Bring the context at point up to date with the files that it came from."
  (interactive)
  (let ((name (rlm--list-id))
        (buffer (current-buffer)))
    (message "Looking through the files of %s…" name)
    (rlm-call "context/update" (list :name name)
              :success (lambda (result)
                         (message "%s is %s: %s, %s" name (plist-get result :change)
                                  (rlm--count (plist-get result :documents) "document")
                                  (rlm--count (plist-get result :chars) "character"))
                         (when (buffer-live-p buffer)
                           (with-current-buffer buffer (revert-buffer)))))))

(defun rlm-contexts-diff ()
  "Show what the newest revision of the context at point has changed."
  (interactive)
  (let ((name (rlm--list-id)))
    (rlm-call "context/diff" (list :name name)
              :success
              (lambda (result)
                (rlm--text-display
                 (format "%s: revision %d since %d: %d added, %d changed, %d removed" name
                         (plist-get result :to_revision) (plist-get result :from_revision)
                         (plist-get result :added) (plist-get result :changed)
                         (plist-get result :removed))
                 (mapconcat (lambda (document)
                              (format "%-8s %s  +%d −%d lines\n" (plist-get document :change)
                                      (plist-get document :name)
                                      (plist-get document :lines_added)
                                      (plist-get document :lines_removed)))
                            (plist-get result :documents) ""))))))

;;;; Sessions

(rlm--define-list-mode rlm-sessions-mode "RLM-Sessions"
  "Mode of the list of sessions."
  ("RET" rlm-sessions-ask)
  ("a" rlm-sessions-ask)
  ("x" rlm-sessions-execute)
  ("d" rlm-sessions-drop))

;;;###autoload
(defun rlm-list-sessions ()
  "List the sessions that the daemon has."
  (interactive)
  (rlm--list-open
   "*rlm sessions*" #'rlm-sessions-mode
   (rlm--list-make :method "session/list" :member :sessions :row #'rlm--session-row
                   :columns [("Session" 20 t) ("Worker" 7 t) ("Held by" 9 t)
                             ("Cells" 6 nil :right-align t) ("Used" 9 nil) ("Contexts" 0 t)])))

(defun rlm--session-row (info)
  "Return the row of the session INFO."
  (let ((contexts (mapcar (lambda (pin) (plist-get pin :context))
                          (plist-get info :contexts))))
    (list (cons (plist-get info :name) contexts)
          (vector (concat (plist-get info :name)
                          (if (rlm--true-p (plist-get info :private)) " 🔒" ""))
                  (if (rlm--true-p (plist-get info :alive)) "alive" "asleep")
                  (let ((run (plist-get info :held_by))) (if run (substring run 0 8) ""))
                  (number-to-string (plist-get info :cells))
                  (rlm--age (plist-get info :used))
                  (string-join contexts ", ")))))

(defun rlm--session-contexts (entry)
  "Return the sources of the session ENTRY."
  (or (mapcar #'rlm--source-from-context (cdr entry))
      (user-error "This session has no context yet")))

(defun rlm-sessions-ask (question)
  "Ask QUESTION in the session at point."
  (interactive (list (rlm--read-question (rlm--session-contexts (rlm--list-id)))))
  (let ((entry (rlm--list-id)))
    (rlm-query question (rlm--session-contexts entry) :display t :session (car entry))))

(defun rlm-sessions-execute ()
  "Write a cell for the session at point."
  (interactive)
  (let ((entry (rlm--list-id)))
    (rlm-cell-edit "" (car entry) (cdr entry))))

(defun rlm-sessions-drop ()
  "End the session at point; its names are gone."
  (interactive)
  (let ((name (car (rlm--list-id))))
    (when (y-or-n-p (format "End session %s? " name))
      (rlm--list-do "session/drop" (list :name name) (format "Ended %s" name)))))

;;;; Hosts

(rlm--define-list-mode rlm-hosts-mode "RLM-Hosts"
  "Mode of the list of hosts, which is read again by itself."
  ("RET" rlm-hosts-show)
  ("P" rlm-hosts-pause)
  ("w" rlm-hosts-wake))

;;;###autoload
(defun rlm-list-hosts ()
  "List the hosts with their state, slots and queues."
  (interactive)
  (rlm--list-open
   "*rlm hosts*" #'rlm-hosts-mode
   (rlm--list-make :method "host/list" :member :hosts :row #'rlm--host-row
                   :live '("host/subscribe" . "host/changed")
                   :columns [("Host" 14 t) ("State" 16 t) ("Trust" 6 t)
                             ("Slots" 6 nil :right-align t) ("Queue" 6 nil :right-align t)
                             ("Done" 8 nil :right-align t) ("Failed" 7 nil :right-align t)
                             ("Models" 0 nil)])))

(defun rlm--host-row (info)
  "Return the row of the host INFO."
  (let ((state (plist-get info :state))
        (retry (plist-get info :retry_in)))
    (list (cons (plist-get info :name) info)
          (vector (plist-get info :name)
                  (propertize (if retry (format "%s, %d s" state (ceiling retry)) state)
                              'font-lock-face (pcase state
                                                ("ok" 'success) ("busy" 'mode-line-emphasis)
                                                ("down" 'error) ("paused" 'warning)
                                                (_ 'shadow)))
                  (plist-get info :trust)
                  (format "%d/%d" (plist-get info :slots_used) (plist-get info :slots))
                  (number-to-string (plist-get info :queued))
                  (number-to-string (plist-get info :completed))
                  (number-to-string (plist-get info :failed))
                  (mapconcat (lambda (model) (plist-get model :name))
                             (plist-get info :models) " ")))))

(defun rlm-hosts-pause ()
  "Pause the host at point, or let it work again."
  (interactive)
  (pcase-let* ((`(,name . ,info) (rlm--list-id))
               (paused (equal "paused" (plist-get info :state)))
               (method (if paused "host/resume" "host/pause")))
    (rlm--need method)
    (rlm--list-do method (list :name name)
                  (format (if paused "%s works again" "%s is paused") name))))

(defun rlm-hosts-wake ()
  "Wake the host at point by the command that the configuration has for it."
  (interactive)
  (rlm--need "host/wake")
  (let ((name (car (rlm--list-id))))
    (rlm--list-do "host/wake" (list :name name) (format "%s is being woken" name))))

(defun rlm-hosts-show ()
  "Show all that is known of the host at point."
  (interactive)
  (let ((info (cdr (rlm--list-id))))
    (rlm--text-display
     (plist-get info :name)
     (concat
      (mapconcat (lambda (pair)
                   (format "%-12s %s" (car pair) (or (cdr pair) "")))
                 (list (cons "url" (plist-get info :url))
                       (cons "provider" (plist-get info :provider))
                       (cons "trust" (plist-get info :trust))
                       (cons "roles" (string-join (plist-get info :roles) ", "))
                       (cons "last error" (plist-get info :last_error)))
                 "\n")
      "\n\n"
      (mapconcat (lambda (model)
                   (format "%-40s window %s, useful %s" (plist-get model :name)
                           (plist-get model :window) (plist-get model :useful_window)))
                 (plist-get info :models) "\n")
      "\n"))))

;;;; Budget

(rlm--define-list-mode rlm-budget-mode "RLM-Budget"
  "Mode of the list of what may be spent, and was.")

;;;###autoload
(defun rlm-list-budget ()
  "List what has been spent today and this month, and what may be."
  (interactive)
  (rlm--list-open
   "*rlm budget*" #'rlm-budget-mode
   (rlm--list-make :method "budget/show" :member :accounts :row #'rlm--account-row :live t
                   :columns [("Account" 10 t) ("Spent" 12 nil :right-align t)
                             ("Reserved" 12 nil :right-align t) ("Limit" 12 nil :right-align t)])))

(defun rlm--account-row (account)
  "Return the row of ACCOUNT."
  (let ((limit (plist-get account :limit)))
    (list (plist-get account :name)
          (vector (plist-get account :name)
                  (rlm--dollars (plist-get account :spent))
                  (rlm--dollars (plist-get account :reserved))
                  (if limit (rlm--dollars limit) "none")))))

(provide 'rlm-status)
;;; rlm-status.el ends here
