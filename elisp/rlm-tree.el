;;; rlm-tree.el --- The tree that a trace shows -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A trace is an Ewoc of nodes, each of which prints itself.  One that is
;; folded, or has a folded one above it, prints little or nothing, so
;; that thousands of sub-queries cost nothing until they are looked at.

;;; Code:

(require 'rlm-run)
(require 'rlm-piece)
(require 'ewoc)
(require 'seq)

(defvar rlm--run)

(defcustom rlm-trace-pieces 200
  "How many sub-queries of a batch are listed at once."
  :type 'natnum
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(cl-defstruct (rlm--node (:constructor rlm--node-make) (:copier nil))
  "A part of a run, as the trace shows it."
  kind
  (key nil :documentation "What later facts find it by.")
  parent
  (folded nil)
  (title nil :documentation "Its heading, a string.")
  (detail nil :documentation "What the heading says besides.")
  (text nil :documentation "Its body, as a text in a fact: a plist.")
  (code nil :documentation "Non-nil if the body is Python.")
  (stream nil :documentation "Name of the stream that grows into it.")
  (failed nil)
  (total 0) (items nil :documentation "Facts of sub-queries, last first.")
  (shown nil :documentation "The body as it is displayed, once made.")
  ewoc-node)

(defvar-local rlm--trace-ewoc nil "The Ewoc of this trace.")
(defvar-local rlm--trace-nodes nil "Hash table from keys to nodes.")
(defvar-local rlm--trace-failed-only nil "Non-nil if only failures are shown.")


(defun rlm--trace-add (kind title &rest slots)
  "Add a node of KIND with TITLE and SLOTS to the trace; return it.
The output of a cell that is running stays below what is added."
  (let* ((node (apply #'rlm--node-make :kind kind :title title slots))
         (last (ewoc-nth rlm--trace-ewoc -1))
         (output (and last (ewoc-data last))))
    (setf (rlm--node-ewoc-node node)
          (if (and output (rlm--node-parent node)
                   (eq 'output (rlm--node-kind output))
                   (eq (rlm--node-parent output) (rlm--node-parent node)))
              (ewoc-enter-before rlm--trace-ewoc last node)
            (ewoc-enter-last rlm--trace-ewoc node)))
    (when (rlm--node-key node)
      (puthash (rlm--node-key node) node rlm--trace-nodes))
    (when (rlm--node-failed node)
      (rlm--trace-trouble (rlm--node-parent node)))
    node))

(defun rlm--trace-changed (node)
  "Print NODE anew."
  (setf (rlm--node-shown node) nil)
  (rlm--trace-print-again node))

(defun rlm--trace-print-again (node)
  "Print NODE again, and leave point and windows where they are."
  (let* ((line (line-number-at-pos))
         (windows (mapcar (lambda (window)
                            (cons window (line-number-at-pos (window-point window))))
                          (get-buffer-window-list nil nil t)))
         (go (lambda (line) (goto-char (point-min)) (forward-line (1- line)) (point))))
    (ewoc-invalidate rlm--trace-ewoc (rlm--node-ewoc-node node))
    (pcase-dolist (`(,window . ,line) windows)
      (set-window-point window (save-excursion (funcall go line))))
    (funcall go line)))

(defun rlm--trace-trouble (node)
  "Mark NODE and those above it as holding a failure."
  (while node
    (unless (rlm--node-failed node)
      (setf (rlm--node-failed node) 'below)
      (when (rlm--node-ewoc-node node)
        (rlm--trace-changed node)))
    (setq node (rlm--node-parent node))))

(defun rlm--trace-hidden-p (node)
  "Return non-nil if NODE is not to be seen."
  (or (and rlm--trace-failed-only (not (rlm--node-failed node)))
      (let ((above (rlm--node-parent node))
            hidden)
        (while (and above (not hidden))
          (setq hidden (rlm--node-folded above)
                above (rlm--node-parent above)))
        hidden)))

(defun rlm--trace-depth (node)
  "Return how deep NODE is."
  (let ((depth 0))
    (while (setq node (rlm--node-parent node))
      (cl-incf depth))
    depth))

;;;;; Printing

(defun rlm--trace-print (node)
  "Insert NODE at point."
  (unless (rlm--trace-hidden-p node)
    (let* ((prefix (make-string (* 2 (rlm--trace-depth node)) ?\s))
           (body (and (not (rlm--node-folded node)) (rlm--trace-body node)))
           (begin (point)))
      (insert (rlm--trace-head node) "\n")
      (put-text-property begin (point) 'rlm-trace-head t)
      (put-text-property begin (point) 'line-prefix prefix)
      (when (and body (not (string-empty-p body)))
        (let ((start (point)))
          (insert body)
          (unless (bolp) (insert "\n"))
          (add-text-properties start (point)
                               (list 'line-prefix (concat prefix "    ")
                                     'wrap-prefix (concat prefix "    "))))))))

(defun rlm--trace-head (node)
  "Return the heading of NODE."
  (concat (cond ((not (rlm--trace-has-body-p node)) "  ")
                ((rlm--node-folded node) "▸ ")
                (t "▾ "))
          (propertize (if (eq (rlm--node-kind node) 'batch)
                          (rlm--trace-batch-title node)
                        (rlm--node-title node))
                      'face (cond ((eq t (rlm--node-failed node)) 'error)
                                  ((eq (rlm--node-kind node) 'turn) 'rlm-trace-heading)
                                  (t 'default)))
          (when-let ((detail (rlm--node-detail node)))
            (propertize (concat "  " detail) 'face 'rlm-trace-detail))))

(defun rlm--trace-has-body-p (node)
  "Return non-nil if there is something below NODE's heading."
  (or (not (member (plist-get (rlm--node-text node) :chars) '(nil 0)))
      (rlm--node-stream node)
      (memq (rlm--node-kind node) '(turn batch))))

(defun rlm--trace-body (node)
  "Return what stands below the heading of NODE, a string."
  (or (rlm--node-shown node)
      (setf (rlm--node-shown node)
            (cond ((rlm--node-text node)
                   (rlm--trace-value (rlm--node-text node) (rlm--node-code node)
                                   (eq 'turn (rlm--node-kind node))))
                  ((rlm--node-items node) (rlm--trace-pieces node))
                  ((rlm--node-stream node) (rlm--trace-growing node))
                  (t "")))))

(defun rlm--trace-growing (node)
  "Return the end of what grows into NODE now."
  (let* ((text (cdr (assoc (rlm--node-stream node) (rlm-run-texts rlm--run))))
         (string (if text (rlm--text-string text) ""))
         (from (max 0 (- (length string) 3000))))
    (rlm--trace-short-lines (substring string from))))

(defun rlm--trace-batch-title (node)
  "Return the heading of NODE, a batch of sub-queries."
  (let* ((items (rlm--node-items node))
         (cached (seq-count (lambda (item)
                              (member (plist-get (plist-get item :completion) :source)
                                      '("cache" "flight")))
                            items))
         (failed (seq-count #'rlm--piece-failed-p items)))
    (concat (format "sub-queries %d/%d" (length items) (rlm--node-total node))
            (when (> cached 0) (format ", %d cached" cached))
            (when (> failed 0) (format ", %d failed" failed)))))

(defun rlm--trace-pieces (node)
  "Return the lines of the sub-queries of NODE."
  (let* ((items (seq-filter (lambda (item)
                              (or (not rlm--trace-failed-only) (rlm--piece-failed-p item)))
                            (reverse (rlm--node-items node))))
         (listed (seq-take items rlm-trace-pieces)))
    (concat (mapconcat #'rlm--trace-piece-line listed "\n")
            (when (nthcdr rlm-trace-pieces items)
              (propertize (format "\n[%d more; `rlm-trace-pieces' says how many are listed]"
                                  (- (length items) (length listed)))
                          'face 'rlm-trace-detail)))))

(defun rlm--trace-piece-line (fact)
  "Return one line for the sub-query that FACT tells of."
  (let* ((failed (rlm--piece-failed-p fact))
         (completion (plist-get fact :completion))
         (said (if failed
                   (plist-get (plist-get fact :error) :message)
                 (let ((reply (plist-get fact :reply)))
                   (or (plist-get reply :text) (plist-get reply :preview))))))
    (propertize
     (concat (format "%4d %s " (plist-get fact :slot)
                     (cond (failed (propertize "✗" 'font-lock-face 'error))
                           ((equal "model" (plist-get completion :source)) "·")
                           (t "✓")))
             (propertize (format "%-8s " (or (plist-get completion :host) ""))
                         'font-lock-face 'rlm-trace-detail)
             (rlm--one-line (or (plist-get fact :prompt_preview) "") 40)
             (propertize " → " 'font-lock-face 'rlm-trace-detail)
             (rlm--one-line (or said "") 60))
     'rlm-trace-piece fact)))

(provide 'rlm-tree)
;;; rlm-tree.el ends here
