;;; rlm-base.el --- What all parts of rlm.el share -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; The customization group, the form of errors, how callbacks are
;; called, and small things that several parts need.

;;; Code:

(require 'seq)
(require 'subr-x)

(defgroup rlm nil
  "Ask questions of texts of any size."
  :group 'applications
  :prefix "rlm-"
  :link '(info-link "(rlm)"))

(defconst rlm-version "0.1.0"
  "The version of this package.")

;;;; Errors

;; An error is a plist (:code :message :hint :kind), as the daemon
;; sends it; faults of our own side have the code 0.

(defun rlm--problem (message &optional hint kind)
  "Return an error of our own side: MESSAGE, HINT and KIND."
  (list :code 0 :message message :hint (or hint "") :kind (or kind "client")))

(defun rlm--error-from-daemon (object)
  "Return the error that the JSON-RPC error OBJECT describes."
  (let ((data (plist-get object :data)))
    (list :code (or (plist-get object :code) 0)
          :message (or (plist-get object :message) "Unknown error")
          :hint (or (and (listp data) (plist-get data :hint)) "")
          :kind (or (and (listp data) (plist-get data :kind)) ""))))

(defun rlm-error-text (error)
  "Return ERROR, as given to an error callback, as text for a person."
  (let ((message (plist-get error :message))
        (hint (plist-get error :hint)))
    (if (or (null hint) (string-empty-p hint))
        message
      (concat message "  " hint))))

;;;; Callbacks

(defvar rlm--in-callback nil
  "Non-nil while a callback runs, where nothing may wait.")

(defun rlm--guarded (function &rest args)
  "Call FUNCTION with ARGS; an error becomes a message.
Unlike `with-demoted-errors' this holds with `debug-on-error' too:
the debugger inside a process filter would lose messages."
  (condition-case err
      (let ((rlm--in-callback t))
        (apply function args))
    (error (message "rlm: %s" (error-message-string err))
           nil)))

(defun rlm--run-guarded (hook &rest args)
  "Call each function of HOOK, a symbol, with ARGS; none stops the others."
  (run-hook-wrapped hook (lambda (function)
                           (apply #'rlm--guarded function args)
                           nil)))

;;;; Values and texts

(defun rlm--true-p (value)
  "Return non-nil if VALUE, as parsed from JSON, is true."
  (and value (not (eq value :json-false))))

(defun rlm--one-line (text width)
  "Return TEXT as one line of at most WIDTH characters."
  (truncate-string-to-width
   (string-trim (replace-regexp-in-string "[[:space:]\n]+" " " text))
   width nil nil "…"))

(defun rlm--count (number noun)
  "Return NUMBER of NOUN, with commas and an s where English wants them."
  (let ((digits (number-to-string number)))
    (while (string-match "\\([0-9]\\)\\([0-9]\\{3\\}\\)\\(?:,\\|\\'\\)" digits)
      (setq digits (replace-match "\\1,\\2" nil nil digits nil)))
    (format "%s %s%s" digits noun (if (= number 1) "" "s"))))

(defun rlm--duration (seconds)
  "Return SECONDS as a person says it."
  (let ((seconds (max 0 (floor seconds))))
    (cond ((< seconds 60) (format "%d s" seconds))
          ((< seconds 3600) (format "%d:%02d min" (/ seconds 60) (% seconds 60)))
          ((< seconds 172800) (format "%d h" (/ seconds 3600)))
          (t (format "%d d" (/ seconds 86400))))))

(provide 'rlm-base)
;;; rlm-base.el ends here
