;;; rlm-trace.el --- Watch a run at work -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The run as a tree: its turns, what the root model wrote in each, the
;; cells, their sub-queries and their output.  The past comes from the
;; journal, the present as it happens; the tree is rlm-tree.el's.
;;
;; What each type of fact makes of the tree is a table,
;; `rlm--trace-facts'; a type that is not known is a line with its name.

;;; Code:

(require 'rlm-again)
(require 'rlm-fold)
(require 'rlm-piece)
(require 'rlm-tree)

(declare-function rlm-cell-edit "rlm-cell" (code session contexts socket))

(defvar-local rlm--trace-next 1 "Number of the fact to come.")
(defvar-local rlm--trace-held nil "Facts that came while the past is read.")
(defvar-local rlm--trace-reading nil "Non-nil while facts of the past are read.")
(defvar-local rlm--trace-turn nil "The node of the present turn.")
(defvar-local rlm--trace-cell nil "The node of the present cell.")
(defvar-local rlm--trace-timer nil "Timer that shows what streams have grown.")
(defvar-local rlm--trace-grown nil "Nodes whose streams have grown.")

;;;; From facts to nodes

(defun rlm--trace-started (fact)
  "Show run_started FACT."
  (rlm--trace-add 'start "Question" :text (plist-get fact :question)
                  :detail (mapconcat (lambda (pin)
                                       (format "%s r%d" (plist-get pin :context)
                                               (plist-get pin :revision)))
                                     (plist-get fact :contexts) ", ")))

(defun rlm--trace-turn-started (fact)
  "Show turn_started FACT."
  (setq rlm--trace-cell nil
        rlm--trace-turn
        (rlm--trace-add 'turn (format "Turn %d" (plist-get fact :turn))
                        :key (plist-get fact :stream)
                        :stream (plist-get fact :stream)
                        :detail "thinking")))

(defun rlm--trace-replied (fact)
  "Show root_replied FACT."
  (when-let ((node (gethash (plist-get fact :stream) rlm--trace-nodes)))
    (setf (rlm--node-text node) (plist-get fact :reply)
          (rlm--node-stream node) nil
          (rlm--node-detail node) (rlm--completion-detail (plist-get fact :completion)))
    (rlm--trace-changed node)
    (when-let ((thinking (plist-get fact :thinking)))
      (rlm--trace-add 'thinking "thinking" :parent node :folded t :text thinking))))

(defun rlm--trace-root-failed (fact)
  "Show root_failed FACT."
  (when-let ((node (gethash (plist-get fact :stream) rlm--trace-nodes)))
    (setf (rlm--node-stream node) nil
          (rlm--node-failed node) t
          (rlm--node-detail node) (plist-get (plist-get fact :error) :message))
    (rlm--trace-changed node)))

(defun rlm--trace-cell-started (fact)
  "Show cell_started FACT."
  (setq rlm--trace-cell
        (rlm--trace-add 'cell (if-let ((program (plist-get fact :program)))
                                  (format "program %s" program)
                                (format "cell %d" (plist-get fact :cell)))
                        :key (cons 'cell (plist-get fact :cell))
                        :parent rlm--trace-turn :detail "running"
                        :folded (and (plist-get fact :program) t)
                        :text (plist-get fact :code) :code t))
  (rlm--trace-add 'output "output" :parent rlm--trace-cell
                  :key (plist-get fact :stream) :stream (plist-get fact :stream)))

(defun rlm--trace-cell-ended (fact)
  "Show cell_ended FACT."
  (let ((cell (gethash (cons 'cell (plist-get fact :cell)) rlm--trace-nodes))
        (output (gethash (plist-get fact :stream) rlm--trace-nodes))
        (ok (rlm--true-p (plist-get fact :ok))))
    (when cell
      (setf (rlm--node-detail cell)
            (concat (format "%.1f s" (or (plist-get fact :seconds) 0))
                    (unless ok (concat " · " (rlm--one-line (or (plist-get fact :error) "failed") 80))))
            (rlm--node-failed cell) (or (not ok) (rlm--node-failed cell)))
      (rlm--trace-changed cell)
      (unless ok (rlm--trace-trouble (rlm--node-parent cell))))
    (when output
      (setf (rlm--node-text output) (plist-get fact :output)
            (rlm--node-stream output) nil
            (rlm--node-failed output) (and (not ok) 'below)
            (rlm--node-detail output)
            (when (> (or (plist-get fact :cut) 0) 0)
              (format "%s kept from the model"
                      (rlm--count (plist-get fact :cut) "character"))))
      (rlm--trace-changed output))))

(defun rlm--trace-batch (fact)
  "Show batch_started FACT."
  (rlm--trace-add 'batch "" :parent rlm--trace-cell :folded t
                  :key (list 'batch (plist-get fact :cell) (plist-get fact :batch))
                  :total (plist-get fact :total)))

(defun rlm--trace-piece (fact)
  "Show FACT of a sub-query."
  (when-let ((node (gethash (list 'batch (plist-get fact :cell) (plist-get fact :batch))
                            rlm--trace-nodes)))
    (push fact (rlm--node-items node))
    (when (rlm--piece-failed-p fact)
      (rlm--trace-trouble node))
    (rlm--trace-grow node)))

(defun rlm--trace-searched (fact)
  "Show searched FACT."
  (rlm--trace-add 'line (format "searched %s, %s"
                                (rlm--count (plist-get fact :chars) "character")
                                (rlm--count (length (plist-get fact :hits)) "passage"))
                  :parent rlm--trace-cell))

(defun rlm--trace-child-started (fact)
  "Show child_started FACT."
  (rlm--trace-add 'child "run of its own" :parent rlm--trace-cell :folded t
                  :key (cons 'child (plist-get fact :child))
                  :detail (rlm--one-line (let ((text (plist-get fact :question)))
                                           (or (plist-get text :text) (plist-get text :preview) ""))
                                         80)))

(defun rlm--trace-child-ended (fact)
  "Show child_ended FACT."
  (when-let ((node (gethash (cons 'child (plist-get fact :child)) rlm--trace-nodes)))
    (setf (rlm--node-text node) (plist-get fact :answer)
          (rlm--node-title node) (concat "run of its own: " (plist-get fact :outcome)))
    (when (member (plist-get fact :outcome) '("failed" "cancelled"))
      (setf (rlm--node-failed node) t)
      (rlm--trace-trouble (rlm--node-parent node)))
    (rlm--trace-changed node)))

(defun rlm--trace-end (fact)
  "Show run_ended FACT."
  (rlm--trace-add 'end (format "Ended: %s" (plist-get fact :outcome))
                  :detail (plist-get fact :why)
                  :failed (equal "failed" (plist-get fact :outcome))
                  :text (plist-get fact :answer)))

(defun rlm--trace-continued (_fact)
  "Show that the run goes on after its end."
  (setq rlm--trace-turn nil
        rlm--trace-cell nil)
  (rlm--trace-add 'line "Continued"))

(defun rlm--trace-line (fact)
  "Show FACT as a line."
  (rlm--trace-add 'line (string-replace "_" " " (plist-get fact :type))
                  :parent rlm--trace-turn
                  :failed (member (plist-get fact :type)
                                  '("limit_hit" "final_refused" "run_interrupted"))
                  :detail (or (plist-get fact :why) (plist-get fact :text)
                              (plist-get fact :strategy))))

(defconst rlm--trace-facts
  '(("run_started" . rlm--trace-started)
    ("turn_started" . rlm--trace-turn-started)
    ("root_replied" . rlm--trace-replied)
    ("root_failed" . rlm--trace-root-failed)
    ("cell_started" . rlm--trace-cell-started)
    ("cell_ended" . rlm--trace-cell-ended)
    ("batch_started" . rlm--trace-batch)
    ("subquery_replied" . rlm--trace-piece)
    ("subquery_failed" . rlm--trace-piece)
    ("child_started" . rlm--trace-child-started)
    ("child_ended" . rlm--trace-child-ended)
    ("searched" . rlm--trace-searched)
    ("run_ended" . rlm--trace-end)
    ("run_continued" . rlm--trace-continued))
  "What shows each type of fact; other types are a line.")

(defun rlm--trace-take (fact)
  "Show FACT, if its turn has come."
  (cond (rlm--trace-reading (push fact rlm--trace-held))
        ((= (plist-get fact :seq) rlm--trace-next)
         (setq rlm--trace-next (1+ rlm--trace-next))
         (let ((inhibit-read-only t))
           (save-excursion
             (funcall (alist-get (plist-get fact :type) rlm--trace-facts
                                 #'rlm--trace-line nil #'equal)
                      fact))))
        ((> (plist-get fact :seq) rlm--trace-next)
         (push fact rlm--trace-held)
         (rlm--trace-read (1- (plist-get fact :seq))))))

(defun rlm--trace-read (to)
  "Read the facts of the past up to number TO."
  (if (< to rlm--trace-next)
      (rlm--trace-release)
    (let ((buffer (current-buffer)))
      (setq rlm--trace-reading t)
      (rlm-call "run/fetch" (list :run_id (rlm-run-id rlm--run)
                                  :from_seq rlm--trace-next :to_seq to)
                :socket (rlm-run-socket rlm--run)
                :success
                (lambda (result)
                  (when (buffer-live-p buffer)
                    (with-current-buffer buffer
                      (setq rlm--trace-reading nil)
                      (let ((facts (append (plist-get result :facts) nil)))
                        (mapc #'rlm--trace-take facts)
                        (if facts (rlm--trace-read to) (rlm--trace-release))))))
                :failure
                (lambda (error)
                  (when (buffer-live-p buffer)
                    (with-current-buffer buffer
                      (setq rlm--trace-reading nil)
                      (message "rlm: %s" (rlm-error-text error)))))))))

(defun rlm--trace-release ()
  "Show the facts that came while the past was read."
  (let ((facts (sort rlm--trace-held
                     (lambda (a b) (< (plist-get a :seq) (plist-get b :seq))))))
    (setq rlm--trace-held nil)
    (mapc #'rlm--trace-take facts)))

;;;; What grows

(defun rlm--trace-grow (node)
  "See to it that NODE is printed again soon."
  (cl-pushnew node rlm--trace-grown)
  (unless rlm--trace-timer
    (let ((buffer (current-buffer)))
      (setq rlm--trace-timer
            (run-at-time 0.2 nil
                         (lambda ()
                           (when (buffer-live-p buffer)
                             (with-current-buffer buffer
                               (setq rlm--trace-timer nil)
                               (rlm--guarded #'rlm--trace-show-grown)))))))))

(defun rlm--trace-show-grown ()
  "Print the nodes again that have grown."
  (let ((nodes rlm--trace-grown)
        (inhibit-read-only t))
    (setq rlm--trace-grown nil)
    (mapc #'rlm--trace-changed nodes)))

(defun rlm--trace-observe (event data)
  "Show EVENT of the run with DATA in the current trace."
  (pcase event
    ('fact (rlm--trace-take data))
    ('delta (when-let ((node (gethash (rlm--text-name (car data)) rlm--trace-nodes)))
              (when (rlm--node-stream node)
                (rlm--trace-grow node)))))
  (force-mode-line-update))

;;;; The mode

(defvar rlm-trace-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "TAB") #'rlm-trace-toggle)
    (define-key map (kbd "<backtab>") #'rlm-trace-toggle-all)
    (define-key map (kbd "n") #'rlm-trace-next)
    (define-key map (kbd "p") #'rlm-trace-previous)
    (define-key map (kbd "RET") #'rlm-trace-visit)
    (define-key map (kbd "f") #'rlm-trace-failed)
    (define-key map (kbd "w") #'rlm-trace-copy)
    (define-key map (kbd "e") #'rlm-trace-edit)
    (define-key map (kbd "a") #'rlm-trace-answer)
    (define-key map (kbd "k") #'rlm-cancel)
    (define-key map (kbd "?") #'describe-mode)
    map)
  "Keymap of `rlm-trace-mode'.")

;; See `read-extended-command-predicate'.
(dolist (command '(rlm-trace-toggle rlm-trace-toggle-all rlm-trace-next rlm-trace-previous
                   rlm-trace-visit rlm-trace-failed rlm-trace-copy rlm-trace-edit rlm-trace-answer))
  (function-put command 'command-modes '(rlm-trace-mode)))

(define-derived-mode rlm-trace-mode special-mode "RLM-Trace"
  "Mode of buffers that show a run at work.

\\{rlm-trace-mode-map}"
  (setq-local header-line-format '(:eval (rlm--header-shown)))
  (setq-local revert-buffer-function (lambda (&rest _) (rlm--trace-begin)))
  (setq-local font-lock-defaults '(nil t))
  (setq truncate-lines t)
  (buffer-disable-undo))

;;;###autoload
(defun rlm-trace (run)
  "Show RUN at work: that of the current buffer, or one that you choose."
  (interactive (list (rlm--run-here)))
  (let ((buffer (or (rlm--trace-buffer run) (rlm--trace-make run))))
    (pop-to-buffer buffer)))

(defun rlm--trace-buffer (run)
  "Return the buffer that traces RUN, or nil."
  (seq-find (lambda (buffer)
              (and (eq run (buffer-local-value 'rlm--run buffer))
                   (with-current-buffer buffer (derived-mode-p 'rlm-trace-mode))))
            (buffer-list)))

(defun rlm--trace-make (run)
  "Return a new buffer that traces RUN."
  (let ((buffer (generate-new-buffer
                 (format "*rlm-trace: %s*" (rlm--one-line (rlm-run-question run) 40)))))
    (with-current-buffer buffer
      (rlm-trace-mode)
      (setq rlm--run run)
      (rlm--trace-begin))
    (rlm--run-observe run (lambda (_run event data)
                            (when (buffer-live-p buffer)
                              (with-current-buffer buffer
                                (rlm--trace-observe event data)))))
    buffer))

(defun rlm--trace-begin ()
  "Show the run of the current buffer from its first fact on."
  (let ((inhibit-read-only t))
    (erase-buffer)
    (setq rlm--trace-nodes (make-hash-table :test #'equal)
          rlm--trace-next 1
          rlm--trace-held nil
          rlm--trace-reading nil
          rlm--trace-turn nil
          rlm--trace-cell nil
          rlm--trace-grown nil
          rlm--trace-ewoc (ewoc-create #'rlm--trace-print nil nil t)))
  (rlm--trace-read (1- (rlm-run-next rlm--run))))

;;;; Commands

(defun rlm--trace-node ()
  "Return the node at point."
  (let ((found (and rlm--trace-ewoc (ewoc-locate rlm--trace-ewoc))))
    (unless found
      (user-error "There is nothing here yet"))
    (ewoc-data found)))

(defun rlm--trace-goto (node)
  "Put point at the heading of NODE."
  (goto-char (ewoc-location (rlm--node-ewoc-node node))))

(defun rlm-trace-toggle ()
  "Fold or unfold what is at point."
  (interactive)
  (let ((node (rlm--trace-node)))
    (setf (rlm--node-folded node) (not (rlm--node-folded node)))
    (rlm--trace-refresh node)
    (rlm--trace-goto node)))

(defun rlm--trace-refresh (&optional node)
  "Print NODE and what is below it again, or everything."
  (let ((inhibit-read-only t))
    (ewoc-map (lambda (other)
                (or (null node) (eq node other)
                    (let ((above other))
                      (while (and above (not (eq above node)))
                        (setq above (rlm--node-parent above)))
                      above)))
              rlm--trace-ewoc)))

(defun rlm-trace-toggle-all ()
  "Fold all turns, or unfold them if all are folded."
  (interactive)
  (let* ((turns (seq-filter (lambda (node) (eq 'turn (rlm--node-kind node)))
                            (hash-table-values rlm--trace-nodes)))
         (fold (seq-some (lambda (node) (not (rlm--node-folded node))) turns))
         (node (rlm--trace-node)))
    (dolist (turn turns)
      (setf (rlm--node-folded turn) fold))
    (rlm--trace-refresh)
    (rlm--trace-goto node)))

(defun rlm-trace-next (&optional count)
  "Go to the COUNTth next heading."
  (interactive "p")
  (dotimes (_ (or count 1))
    (let ((place (save-excursion
                   (forward-line 1)
                   (text-property-any (point) (point-max) 'rlm-trace-head t))))
      (if place (goto-char place)
        (user-error "This is the last heading")))))

(defun rlm-trace-previous (&optional count)
  "Go to the COUNTth previous heading."
  (interactive "p")
  (dotimes (_ (or count 1))
    (let ((place (save-excursion
                   (beginning-of-line)
                   (while (and (not (bobp))
                               (progn (forward-line -1) t)
                               (not (get-text-property (point) 'rlm-trace-head))))
                   (and (get-text-property (point) 'rlm-trace-head) (point)))))
      (if (and place (< place (line-beginning-position)))
          (goto-char place)
        (user-error "This is the first heading")))))

(defun rlm-trace-failed ()
  "Show only what failed, or everything again."
  (interactive)
  (setq rlm--trace-failed-only (not rlm--trace-failed-only))
  (maphash (lambda (_key node)
             (when (eq 'batch (rlm--node-kind node))
               (setf (rlm--node-shown node) nil)))
           rlm--trace-nodes)
  (rlm--trace-refresh)
  (goto-char (point-min))
  (message (if rlm--trace-failed-only "Only what failed" "Everything")))

(defun rlm-trace-copy ()
  "Put the text at point, whole, into the kill ring."
  (interactive)
  (let ((piece (get-text-property (point) 'rlm-trace-piece)))
    (rlm--trace-whole (cond ((null piece) (rlm--node-text (rlm--trace-node)))
                            ((rlm--piece-failed-p piece)
                             (list :text (plist-get (plist-get piece :error) :message)))
                            (t (plist-get piece :reply)))
                      (lambda (text)
                        (kill-new text)
                        (message "Copied %s" (rlm--count (length text) "character"))))))

(defun rlm--trace-whole (text callback)
  "Call CALLBACK with the whole of TEXT, a plist of a fact."
  (unless text
    (user-error "There is no text here"))
  (rlm--run-value rlm--run text callback))

(defun rlm-trace-answer ()
  "Show the answer of this run."
  (interactive)
  (if-let ((buffer (rlm--answer-buffer rlm--run)))
      (pop-to-buffer buffer)
    (rlm-open-run (rlm-run-id rlm--run) (rlm-run-socket rlm--run))))

(defun rlm-trace-visit ()
  "Show what is at point whole: a text, or a sub-query with prompt and reply."
  (interactive)
  (let ((piece (get-text-property (point) 'rlm-trace-piece))
        (node (rlm--trace-node)))
    (cond (piece (rlm--piece-show rlm--run piece))
          ((rlm--node-text node)
           (let ((title (rlm--node-title node))
                 (code (rlm--node-code node)))
             (rlm--trace-whole (rlm--node-text node)
                               (lambda (text) (rlm--text-display title (if code (rlm--trace-python text) text))))))
          (t (rlm-trace-toggle)))))

(defun rlm-trace-edit ()
  "Edit the cell at point, and run it in the session of this run."
  (interactive)
  (let ((node (rlm--trace-node))
        (run rlm--run))
    (while (and node (not (rlm--node-code node)))
      (setq node (rlm--node-parent node)))
    (unless node
      (user-error "There is no cell here"))
    (rlm--trace-whole
     (rlm--node-text node)
     (lambda (code)
       (require 'rlm-cell)
       (rlm-cell-edit code
                      (plist-get (rlm-run-params run) :session)
                      (delq nil (mapcar #'rlm-source-name (rlm-run-sources run)))
                      (rlm-run-socket run))))))

(provide 'rlm-trace)
;;; rlm-trace.el ends here
