;;; rlm-dwim.el --- Find out what is to be asked about -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; What a person means who asks without saying of what: the region, the
;; marked files, the text behind an answer, the Org subtree whose
;; heading point is at, the diff that point is in, the whole manual of
;; which Info shows a node, the PDF, else the buffer.  Each is a
;; function of `rlm-context-functions'; the first that finds something
;; counts, and the prompt says what that is.

;;; Code:

(require 'rlm-context)
(require 'rlm-run)
(require 'seq)
(require 'subr-x)

(declare-function dired-get-marked-files "dired" (&optional localp arg filter distinguish error))
(declare-function dired-current-directory "dired" (&optional localp))
(declare-function ibuffer-get-marked-buffers "ibuf-ext" ())
(declare-function ibuffer-current-buffer "ibuffer" (&optional must-be-live))
(declare-function org-at-heading-p "org" (&optional invisible-not-ok))
(declare-function org-end-of-subtree "org" (&optional invisible-ok to-heading))
(declare-function org-back-to-heading "org" (&optional invisible-ok))
(declare-function Info-find-file "info" (filename &optional noerror no-pop-to-dir))
(declare-function Info-goto-node "info" (nodename &optional fork strict-case))
(declare-function info-insert-file-contents "info" (filename &optional visit))
(declare-function pdf-view-goto-page "ext:pdf-view" (page &optional window))
(declare-function doc-view-goto-page "doc-view" (page))
(declare-function rlm-magit-context "rlm-magit" ())

(defvar Info-current-file)
(defvar rlm--run)
(defvar rlm--last-sources nil
  "The texts that were asked about last.")

(defcustom rlm-context-functions
  '(rlm-context-region
    rlm-context-marked-files
    rlm-context-marked-buffers
    rlm-context-answer
    rlm-context-subtree
    rlm-context-diff
    rlm-context-manual
    rlm-context-pdf)
  "Functions that say what a question is to be asked of.
Each is called with no argument in the buffer where the question
comes up and returns an object or a list of objects for
`rlm-source-from', or nil.  The first that returns something
counts; if none does it is the buffer."
  :type 'hook
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defun rlm--dwim-source (again)
  "Return the sources that the user means; with AGAIN the last ones."
  (if again
      (rlm--sources-again
       (or rlm--last-sources (user-error "Nothing was asked about yet")))
    (rlm--sources-of
     (or (run-hook-with-args-until-success 'rlm-context-functions)
         (current-buffer)))))

(defun rlm--sources-of (object)
  "Return the sources for OBJECT, as for `rlm-source-from', or a list of such."
  (cond ((and (consp object)
              (or (rlm-source-p (car object))
                  (stringp (car object))
                  (and (bufferp (car object)) (not (integer-or-marker-p (cadr object))))))
         (mapcar #'rlm-source-from object))
        (t (list (rlm-source-from object)))))

(defun rlm--sources-again (sources)
  "Return SOURCES as their texts are now."
  (mapcar #'rlm--source-again sources))

(defun rlm--source-again (source)
  "Return SOURCE as its text is now; it stays private if it was."
  (let ((now (rlm--source-anew source)))
    (if (and (rlm-source-private source) (not (rlm-source-private now)))
        (rlm--source-closed now)
      now)))

(defun rlm--source-anew (source)
  "Return a source for the text of SOURCE as it is now."
  (cond
   ((rlm-source-stored source) source)
   ((rlm-source-paths source)
    (rlm--source-from-paths (rlm-source-paths source) (rlm-source-label source)))
   ((rlm-source-prepare source) source)
   ((buffer-live-p (rlm-source-buffer source))
    (rlm--with-source source (lambda (start end)
                               (rlm-source-from (current-buffer) start end))))
   ((or (rlm-source-name source) (rlm-source-text source)) source)
   (t (user-error "The text is gone with its buffer"))))

;;;; Region and buffers

(defun rlm-context-region ()
  "Return the region, if it is active."
  (when (use-region-p)
    (rlm-source-from (current-buffer) (region-beginning) (region-end))))

(defun rlm-context-marked-buffers ()
  "Return the buffers that are marked in Ibuffer, or the one at point."
  (when (derived-mode-p 'ibuffer-mode)
    (when-let ((buffers (or (ibuffer-get-marked-buffers)
                            (delq nil (list (ibuffer-current-buffer))))))
      (mapcar #'rlm-source-from
              (seq-filter #'buffer-live-p buffers)))))

(defun rlm-context-answer ()
  "Return the texts that the answer in the current buffer is about."
  (when (bound-and-true-p rlm--run)
    (rlm--sources-again (rlm-run-sources rlm--run))))

(defun rlm-context-subtree ()
  "Return the Org subtree, if point is at its heading."
  (when (and (derived-mode-p 'org-mode) (org-at-heading-p))
    (save-excursion
      (org-back-to-heading t)
      (rlm-source-from (current-buffer) (point)
                       (progn (org-end-of-subtree t t) (point))))))

(defun rlm-context-diff ()
  "Return what the Magit section at point is about."
  (when (derived-mode-p 'magit-mode)
    (require 'rlm-magit)
    (rlm-magit-context)))

;;;; Files

(defun rlm-context-marked-files ()
  "Return the files that are marked in Dired, or the one at point.
Where there is none it is the folder that is listed."
  (when (derived-mode-p 'dired-mode)
    (rlm--sources-of-files
     (or (seq-filter #'file-exists-p (dired-get-marked-files))
         (list (dired-current-directory))))))

(defun rlm--sources-of-files (files)
  "Return the sources for FILES, which may be folders.
The daemon reads local ones; those that Emacs must decode, and
those that are being edited, are read here."
  (let* ((here (seq-filter #'rlm--file-read-here-p files))
         (there (seq-difference files here)))
    (append (when there
              (list (rlm--source-from-paths there (rlm--files-label there))))
            (mapcar #'rlm--source-from-file here))))

(defun rlm--files-label (files)
  "Return what a person calls FILES."
  (let ((names (mapcar (lambda (file)
                         (file-name-nondirectory (directory-file-name file)))
                       files)))
    (if (> (length names) 3)
        (format "%d files" (length names))
      (string-join names ", "))))

(defun rlm--file-read-here-p (file)
  "Return non-nil if Emacs, not the daemon, must read FILE."
  (or (when-let ((buffer (find-buffer-visiting file)))
        (buffer-modified-p buffer))
      (and (find-file-name-handler file 'insert-file-contents) t)))

(defun rlm--source-from-file (file)
  "Return the source for FILE as Emacs decodes it."
  (when (file-directory-p file)
    (user-error "A folder on another machine: mark files in it instead"))
  (if-let ((buffer (find-buffer-visiting file)))
      (rlm-source-from buffer)
    (with-temp-buffer
      (insert-file-contents file)
      (setq buffer-file-name file)
      (let ((private (or (rlm--private-p) (rlm--path-private-p file)))
            (source (rlm--source-from-string (buffer-string)
                                             (file-name-nondirectory file))))
        (set-buffer-modified-p nil)
        (setq buffer-file-name nil)
        (setf (rlm-source-private source) private
              (rlm-source-file source) file)
        source))))

;;;; Manuals

(defun rlm-context-manual ()
  "Return the whole manual of which Info shows a node."
  (when (and (derived-mode-p 'Info-mode)
             (stringp Info-current-file)
             (file-name-absolute-p Info-current-file))
    (let ((source (rlm--source-from-string
                   (rlm--manual-text Info-current-file)
                   (concat (file-name-base Info-current-file) " manual"))))
      (setf (rlm-source-file source) Info-current-file
            (rlm-source-place source) #'rlm--manual-place
            (rlm-source-where source) #'rlm--manual-where)
      source)))

(defun rlm--manual-text (file)
  "Return the text of the manual FILE with all its parts."
  (with-temp-buffer
    (info-insert-file-contents file)
    (goto-char (point-min))
    (when (search-forward "\^_\nIndirect:" nil t)
      (let (parts)
        (while (re-search-forward "^\\(.*\\): [0-9]+$" (save-excursion
                                                         (search-forward "\^_" nil 'move)
                                                         (point))
                                  t)
          (push (expand-file-name (match-string 1) (file-name-directory file)) parts))
        (erase-buffer)
        (dolist (part (nreverse parts))
          (goto-char (point-max))
          (info-insert-file-contents part))))
    (goto-char (point-min))
    (when (re-search-forward "^\^_\nTag Table:" nil t)
      (delete-region (match-beginning 0) (point-max)))
    (buffer-string)))

(defun rlm--manual-node (source citation)
  "Return the name of the node of SOURCE in which CITATION stands, or nil."
  (when-let ((text (rlm-source-text source))
             (start (plist-get citation :start)))
    (with-temp-buffer
      (insert (substring text 0 (min (length text) start)))
      (when (re-search-backward "\^_\nFile: [^,\n]*,[ \t]+Node: \\([^,\n]+\\)" nil t)
        (match-string 1)))))

(defun rlm--manual-where (source citation)
  "Return the node of SOURCE that holds CITATION, for a person."
  (when-let ((node (rlm--manual-node source citation)))
    (format "(%s)%s" (file-name-base (rlm-source-file source)) node)))

(defun rlm--manual-place (source citation)
  "Show the node of SOURCE that holds CITATION; return (BUFFER START END)."
  (when-let ((node (rlm--manual-node source citation)))
    (save-window-excursion
      (Info-goto-node (format "(%s)%s" (rlm-source-file source) node))
      (list (current-buffer) (point-min) (point-max)))))

;;;; PDF

(defun rlm-context-pdf ()
  "Return the text of the PDF that the buffer shows."
  (when (and buffer-file-name
             (derived-mode-p 'pdf-view-mode 'doc-view-mode)
             (string-match-p "\\.pdf\\'" buffer-file-name))
    (let ((time (file-attribute-modification-time (file-attributes buffer-file-name))))
      (or (seq-find (lambda (source) (equal time (rlm-source-tick source))) rlm--sources)
          (rlm--source-make :buffer (current-buffer) :file buffer-file-name
                            :start (point-min-marker) :end (point-max-marker)
                            :label (buffer-name) :private (rlm--private-p)
                            :tick time :chars nil
                            :prepare #'rlm--pdf-prepare
                            :place #'rlm--pdf-place
                            :where #'rlm--pdf-where)))))

(defun rlm--pdf-prepare (source success failure)
  "Have pdftotext make the text of SOURCE, then call SUCCESS, else FAILURE."
  (let* ((program (or (executable-find "pdftotext")
                      (user-error "To read a PDF the program pdftotext is needed (Debian: poppler-utils)")))
         (file (rlm-source-file source))
         (local (or (file-local-copy file) file))
         (buffer (generate-new-buffer " *rlm-pdf*")))
    (make-process
     :name "rlm-pdf" :buffer buffer :noquery t :connection-type 'pipe
     :coding 'utf-8-unix :stderr (get-buffer-create " *rlm-pdf-errors*")
     :command (list program "-enc" "UTF-8" (expand-file-name local) "-")
     :sentinel
     (lambda (process _event)
       (unless (process-live-p process)
         (let ((text (with-current-buffer buffer (buffer-string))))
           (kill-buffer buffer)
           (if (or (/= 0 (process-exit-status process)) (string-blank-p text))
               (rlm--guarded failure
                             (rlm--problem (format "%s holds no text that pdftotext can read."
                                                   (file-name-nondirectory file))
                                           "A scanned PDF needs character recognition first."))
             (setf (rlm-source-text source) text
                   (rlm-source-chars source) (length text))
             (rlm--guarded success))))))))

(defun rlm--pdf-page (source citation)
  "Return the page of SOURCE on which CITATION stands, or nil."
  (when-let ((text (rlm-source-text source))
             (start (plist-get citation :start)))
    (1+ (seq-count (lambda (char) (eql char ?\f))
                   (substring text 0 (min start (length text)))))))

(defun rlm--pdf-where (source citation)
  "Return the page of SOURCE that holds CITATION, for a person."
  (when-let ((page (rlm--pdf-page source citation)))
    (format "%s p. %d" (rlm-source-label source) page)))

(defun rlm--pdf-place (source citation)
  "Show the page of SOURCE that holds CITATION; return its buffer in a list."
  (when-let ((page (rlm--pdf-page source citation)))
    (let ((buffer (if (buffer-live-p (rlm-source-buffer source))
                      (rlm-source-buffer source)
                    (find-file-noselect (rlm-source-file source)))))
      (save-selected-window
        (pop-to-buffer buffer)
        (cond ((derived-mode-p 'pdf-view-mode) (pdf-view-goto-page page))
              ((derived-mode-p 'doc-view-mode)
               (ignore-errors (doc-view-goto-page page)))))
      (list buffer))))

(provide 'rlm-dwim)
;;; rlm-dwim.el ends here
