;;; ob-rlm.el --- Questions and cells in Org documents -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Blocks of the language rlm are questions, those of rlm-python are
;; cells that run in a session's cage.  They run while you go on
;; writing; the result appears when it is there.  Where Org needs a
;; value at once (exports, references, calls, inline blocks) they wait.
;;
;; What a block says is read by rlm-block.el; its result is put into the
;; document by rlm-result.el.

;;; Code:

(require 'rlm-block)
(require 'rlm-result)
(require 'rlm-cell)
(require 'ob)

(declare-function org-element-type "org-element" (element))
(declare-function org-element-context "org-element" (&optional element))

(defvar org-babel-default-header-args:rlm
  '((:results . "drawer replace") (:exports . "both") (:eval . "no-export") (:session . "none"))
  "Default header arguments of rlm blocks.")

(defconst org-babel-header-args:rlm
  '((context . :any) (profile . :any) (strategy . :any) (model . :any) (sub-model . :any)
    (budget . :any) (turns . :any) (seconds . :any) (fresh . ((no yes))) (async . ((yes no)))
    (stream . ((yes no))) (trace . ((no yes))) (sources . ((yes no))))
  "Header arguments that rlm blocks have of their own.")

(defvar org-babel-default-header-args:rlm-python
  '((:results . "output verbatim replace") (:exports . "both") (:eval . "no-export")
    (:session . "org"))
  "Default header arguments of rlm-python blocks.")

(defconst org-babel-header-args:rlm-python
  '((context . :any) (async . ((yes no))))
  "Header arguments that rlm-python blocks have of their own.")

;;;; When

(defun rlm--babel-async-p (lang body params)
  "Return non-nil if the block of LANG with BODY and PARAMS need not be waited for."
  (and (not (equal "no" (format "%s" (cdr (assq :async params)))))
       (not (bound-and-true-p org-export-current-backend))
       (not (bound-and-true-p org-babel-exp-reference-buffer))
       (null (seq-intersection '("none" "silent" "append" "prepend")
                               (cdr (assq :result-params params))))
       (null (rlm--babel-param params :wrap))
       org-babel-current-src-block-location
       (not (memq (org-element-type (org-element-context))
                  '(babel-call inline-babel-call inline-src-block)))
       ;; Else another block asks for our value.
       (org-with-wide-buffer
        (goto-char org-babel-current-src-block-location)
        (let ((info (org-babel-get-src-block-info 'light)))
          (and (equal lang (car info))
               (equal (string-trim (nth 1 info)) (string-trim body)))))))

;;;; Questions

(defun org-babel-expand-body:rlm (body params)
  "Return BODY, with the digest of its texts if PARAMS say that results are kept."
  (if (rlm--babel-yes-p params :cache)
      (format "%s\n[%s]" body (rlm--babel-digest params))
    body))

(defun rlm--babel-ask (body params session)
  "Ask BODY as PARAMS say, in SESSION; return the run."
  (let ((run (apply #'rlm-query (string-trim (org-no-properties body))
                    (rlm--babel-context params)
                    :session session
                    :schema (and (rlm--babel-table-p params) rlm--babel-table-schema)
                    (rlm--babel-choices params))))
    (when (rlm--babel-yes-p params :trace)
      (require 'rlm-trace)
      (save-selected-window (rlm-trace run)))
    run))

;;;###autoload
(defun org-babel-execute:rlm (body params)
  "Ask the question BODY as PARAMS say.
Return the answer, or what stands for it until it is there."
  (when (string-blank-p body)
    (user-error "There is no question"))
  (let* ((session (rlm--babel-session params))
         (async (rlm--babel-async-p "rlm" body params))
         (vars (rlm--babel-assignments params))
         (ask (lambda () (rlm--babel-ask body params session))))
    (unless (string-empty-p vars)
      (rlm--babel-give vars session))
    (if async
        (rlm--babel-while-beginning
         params
         (lambda (marker)
           (let ((run (funcall ask)))
             (setf (cdr (assoc marker rlm--babel-running)) (rlm-run-id run))
             (rlm--babel-stream run marker params)
             (rlm--run-when-over run (lambda (run) (rlm--babel-over run marker params)))
             (rlm--babel-placeholder marker))))
      (let ((run (funcall ask)))
        (rlm--babel-await run)
        (when (rlm-run-error run)
          (user-error "%s" (rlm-error-text (rlm-run-error run))))
        (rlm--babel-result run params)))))

(defun rlm--babel-over (run marker params)
  "RUN, of the block at MARKER with PARAMS, is over."
  (rlm--babel-end marker)
  ;; A table that cannot be read is a failure to be told, not a signal.
  (let ((result (condition-case err
                    (rlm--babel-result run params)
                  (error (concat "Failed: " (error-message-string err))))))
    (rlm--babel-insert marker result (or (rlm--babel-failed-p run)
                                         (and (stringp result)
                                              (string-prefix-p "Failed: " result))))))

(defun rlm--babel-await (run)
  "Wait until RUN is over; quitting cancels it."
  (let (over)
    (unwind-protect
        (setq over (rlm-wait run))
      (unless over
        (rlm--guarded #'rlm-run-cancel run "nobody waits for it any more")))))

(defun rlm--babel-give (assignments session)
  "Run ASSIGNMENTS, Python, in SESSION, and wait for it."
  (let ((result (rlm-call-sync "repl/execute"
                               (list :code assignments :run_id (rlm--new-id)
                                     :contexts [] :session session))))
    (unless (rlm--true-p (plist-get result :ok))
      (user-error "The variables could not be set: %s" (plist-get result :error)))))

;;;; Cells

(defun org-babel-expand-body:rlm-python (body params)
  "Return BODY after what gives the variables of PARAMS their values."
  (let ((vars (rlm--babel-assignments params)))
    (if (string-empty-p vars) body (concat vars "\n" body))))

(defun rlm--babel-load (sources names success failure)
  "Have SOURCES loaded; call SUCCESS with all names, NAMES being the first ones.
FAILURE is called with an error."
  (if (null sources)
      (funcall success (reverse names))
    (rlm--when-ready (rlm--client)
                     (lambda ()
                       (rlm--source-load (car sources) (rlm-socket-path)
                                         (lambda (name)
                                           (rlm--babel-load (cdr sources) (cons name names)
                                                            success failure))
                                         failure))
                     failure)))

(defun rlm--babel-run (code session sources done)
  "Run CODE in SESSION over SOURCES; call DONE with text and whether it failed.
Return a function that gives the id of its run, once it has one."
  (let ((failure (lambda (error) (funcall done (concat "Failed: " (rlm-error-text error)) t)))
        id)
    (rlm--babel-load
     sources nil
     (lambda (names)
       (setq id (rlm--cell-execute code session names nil
                                   (lambda (result)
                                     (funcall done (rlm--cell-result-text result)
                                              (not (rlm--true-p (plist-get result :ok)))))
                                   failure)))
     failure)
    (lambda () id)))

;;;###autoload
(defun org-babel-execute:rlm-python (body params)
  "Run BODY, Python, in the session of PARAMS.
Return its output, or what stands for it until it is there."
  (let ((code (org-babel-expand-body:rlm-python body params))
        (session (or (rlm--babel-param params :session) "org"))
        (sources (and (rlm--babel-param params :context) (rlm--babel-context params))))
    (if (rlm--babel-async-p "rlm-python" body params)
        (rlm--babel-while-beginning
         params
         (lambda (marker)
           (rlm--babel-run code session sources
                           (lambda (text failed)
                             (rlm--babel-end marker)
                             (rlm--babel-insert marker text failed)))
           (rlm--babel-placeholder marker)))
      (rlm--babel-run-now code session sources))))

(defun rlm--babel-run-now (code session sources)
  "Run CODE in SESSION over SOURCES, wait, and return its output.
Quitting stops it."
  (let* ((outcome nil)
         (id (rlm--babel-run code session sources
                             (lambda (text failed) (setq outcome (list text failed))))))
    (unwind-protect
        (while (null outcome)
          (accept-process-output nil 0.02))
      (when (and (null outcome) (funcall id))
        (rlm--guarded #'rlm-call "run/cancel"
                      (list :run_id (funcall id) :why "nobody waits for it any more"))))
    (pcase outcome
      (`(,text nil) text)
      (`(,text ,_) (user-error "%s" text)))))

(add-to-list 'org-src-lang-modes '("rlm" . text))
(add-to-list 'org-src-lang-modes '("rlm-python" . python))

(provide 'ob-rlm)
;;; ob-rlm.el ends here
