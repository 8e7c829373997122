;;; rlm-block.el --- What a block of an Org document says -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The header arguments of blocks of ob-rlm.el: what they ask of, by
;; what choices, and what their variables are in Python.

;;; Code:

(require 'rlm-dwim)
(require 'rlm-ask)
(require 'ob)

(declare-function project-root "project" (project))

(defun rlm--babel-param (params key)
  "Return the value of KEY in PARAMS, a string, or nil if it is empty or none."
  (let ((value (cdr (assq key params))))
    (when (and value (not (member (format "%s" value) '("" "none" "no" "nil"))))
      (format "%s" value))))

(defun rlm--babel-yes-p (params key)
  "Return non-nil if KEY is yes in PARAMS."
  (equal "yes" (rlm--babel-param params key)))

(defun rlm--babel-choices (params)
  "Return the keyword arguments for `rlm-query' that PARAMS come to."
  (let ((words (lambda (key) (when-let ((value (rlm--babel-param params key)))
                               (split-string value)))))
    (list :profile (rlm--babel-param params :profile)
          :strategy (or (rlm--babel-param params :strategy)
                        (and (org-babel--get-vars params) "rlm"))
          :root (funcall words :model)
          :sub (funcall words :sub-model)
          :fresh (rlm--babel-yes-p params :fresh)
          :limits (append (rlm--babel-number params :turns)
                          (rlm--babel-number params :seconds)
                          (rlm--babel-budget params)))))

(defun rlm--babel-budget (params)
  "Return the limit that `:budget' in PARAMS comes to.
That is dollars, such as $0.50, or tokens, such as 200k."
  (let ((value (rlm--babel-param params :budget)))
    (if (and value (string-match "\\`\\$\\([0-9]+\\(?:\\.[0-9]+\\)?\\)\\'" value))
        (list :money (string-to-number (match-string 1 value)))
      (when-let ((tokens (rlm--babel-number params :budget)))
        (list :tokens (cadr tokens))))))

(defun rlm--babel-number (params key)
  "Return a list of KEY and its value in PARAMS, a number; nil if there is none.
K and M stand for thousands and millions."
  (when-let ((value (rlm--babel-param params key)))
    (if (string-match "\\`\\([0-9]+\\(?:\\.[0-9]+\\)?\\)\\([kKM]\\)?\\'" value)
        (let ((number (string-to-number (match-string 1 value))))
          (list key (pcase (match-string 2 value)
                      ('nil number)
                      ("M" (round (* 1000000 number)))
                      (_ (round (* 1000 number))))))
      (user-error "`%s' is a number, such as 20 or 200k, not %s" key value))))

(defun rlm--babel-context (params)
  "Return the sources that PARAMS name.
That is `buffer', `buffer:NAME', `file:PATH', `project', a file
that exists, or the name of a context that the daemon has; else the
subtree, without its source blocks and their results."
  (pcase (rlm--babel-param params :context)
    ((or 'nil "subtree") (list (rlm--babel-subtree)))
    ("buffer" (list (rlm-source-from (current-buffer))))
    ("project"
     (require 'project)
     (rlm--sources-of-files (list (project-root (project-current t)))))
    ((rx bos "buffer:" (let name (+ anything)))
     (list (rlm-source-from (or (get-buffer name)
                                (user-error "There is no buffer %s" name)))))
    ((rx bos "file:" (let path (+ anything)))
     (rlm--babel-file path))
    ((and path (guard (file-exists-p path))) (rlm--babel-file path))
    (name (list (rlm--source-from-context name)))))

(defun rlm--babel-file (path)
  "Return the sources for PATH."
  (let ((path (expand-file-name path)))
    (unless (file-exists-p path)
      (user-error "There is no file %s" path))
    (rlm--sources-of-files (list path))))

(defun rlm--babel-subtree ()
  "Return the source for the subtree at point, without blocks and results.
So the text is the same when the block runs again."
  (save-excursion
    (save-restriction
      (widen)
      (let ((label (if (org-before-first-heading-p)
                       (buffer-name)
                     (org-no-properties (org-get-heading t t t t)))))
        (unless (org-before-first-heading-p)
          (org-narrow-to-subtree))
        (rlm--source-from-string
         (rlm--babel-without-blocks (buffer-substring-no-properties (point-min) (point-max)))
         label)))))

(defun rlm--babel-without-blocks (text)
  "Return TEXT without source blocks and results."
  (let ((case-fold-search t))
    (with-temp-buffer
      (insert text)
      (delay-mode-hooks (org-mode))
      (goto-char (point-min))
      (while (re-search-forward org-babel-result-regexp nil t)
        (let ((beg (line-beginning-position)))
          (forward-line 1)
          (delete-region beg (max (point) (min (point-max) (org-babel-result-end))))))
      (goto-char (point-min))
      (while (re-search-forward "^[ \t]*#\\+begin_src \\(?:.*\n\\)*?[ \t]*#\\+end_src.*\n?" nil t)
        (replace-match ""))
      (buffer-string))))

(defun rlm--babel-session (params)
  "Return the session that PARAMS name; a new one where variables need it."
  (or (rlm--babel-param params :session)
      (when (org-babel--get-vars params)
        (rlm--session-name))))

(defun rlm--babel-assignments (params)
  "Return Python that gives the variables of PARAMS their values.
A table is a list of lists."
  (mapconcat
   (lambda (pair)
     (let ((name (format "%s" (car pair))))
       (unless (string-match-p "\\`[a-zA-Z_][a-zA-Z0-9_]*\\'" name)
         (user-error "Not a name in Python: %s" name))
       (format "%s = __import__('json').loads(%s)" name
               (rlm--babel-python-string
                (json-serialize (rlm--babel-json (cdr pair)) :null-object :null)))))
   (org-babel--get-vars params) "\n"))

(defun rlm--babel-python-string (json)
  "Return JSON, as `json-serialize' made it, as a Python string."
  (let ((text (if (multibyte-string-p json) json (decode-coding-string json 'utf-8))))
    (concat "'" (replace-regexp-in-string
                 "['\\\\\n]" (lambda (char)
                               (if (equal char "\n") "\\n" (concat "\\" char)))
                 text t t)
            "'")))

(defun rlm--babel-json (value)
  "Return VALUE, of an Org variable, such that it can be serialized."
  (cond ((eq value 'hline) :null)
        ((null value) :null)
        ((stringp value) (substring-no-properties value))
        ((numberp value) value)
        ((listp value) (vconcat (mapcar #'rlm--babel-json value)))
        (t (format "%s" value))))

(defun rlm--babel-digest (params)
  "Return a digest of the texts that PARAMS name, for the hash of `:cache'."
  (mapconcat
   (lambda (source)
     (cond ((rlm-source-paths source)
            (format "%S" (mapcar (lambda (path)
                                   (let ((attributes (file-attributes path)))
                                     (list path (file-attribute-size attributes)
                                           (file-attribute-modification-time attributes))))
                                 (rlm-source-paths source))))
           ((rlm-source-stored source)
            (plist-get (plist-get (rlm-call-sync "context/info"
                                                 (list :name (rlm-source-name source)
                                                       :documents_limit 0))
                                  :context)
                       :digest))
           (t (secure-hash 'sha1 (encode-coding-string (rlm--source-string source)
                                                       'utf-8-emacs)))))
   (rlm--babel-context params) " "))

(provide 'rlm-block)
;;; rlm-block.el ends here
