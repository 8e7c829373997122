;;; rlm-choice.el --- What is chosen for a question -*- lexical-binding: t; package-lint-main-file: "rlm.el"; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; How a question is to be answered is said in four places: by whoever
;; asks, in the menu, by a profile, by options.  The first that says
;; something counts, for each choice by itself.  `rlm--params' makes of
;; all that what run/start is given.

;;; Code:

(require 'rlm-base)

;;;; Options of every question

(defcustom rlm-strategy "auto"
  "How questions are answered.
\"auto\" lets the daemon choose by the size of the text."
  :type '(choice (const :tag "Let the daemon choose" "auto")
                 (const :tag "One completion over the whole text" "direct")
                 (const :tag "A model that writes programs" "rlm")
                 (const :tag "The question to each piece, then combine" "map")
                 (const :tag "Search and quote, no model" "quote")
                 (string :tag "A program of mine"))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-root-models nil
  "The models that may lead a run, as \"host/model\", the preferred one first.
Nil leaves the choice to the daemon's configuration."
  :type '(repeat string)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-sub-models nil
  "The models that may read pieces, as \"host/model\".
Nil leaves the choice to the daemon's configuration."
  :type '(repeat string)
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-limits nil
  "What a run may use, a plist; nil leaves that to the daemon.
The keys are :turns, :sub_queries, :tokens, :money (dollars), :seconds,
:waiting (the seconds for which it waits for hosts), :depth and
:consecutive_errors."
  :type '(plist :options ((:turns natnum) (:sub_queries natnum) (:tokens natnum)
                          (:money number) (:seconds number) (:waiting number)
                          (:depth natnum) (:consecutive_errors natnum)))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-profiles
  '(("fast" :limits (:turns 8 :sub_queries 100 :seconds 120))
    ("thorough" :strategy "rlm" :limits (:turns 60 :sub_queries 10000 :seconds 14400))
    ("private" :private t)
    ("night" :confirm "accept" :limits (:turns 100 :sub_queries 50000 :seconds 36000 :waiting 36000)))
  "Sets of choices that have a name.
Each is a name and a plist: :strategy, :root, :sub and :limits as the
options `rlm-strategy', `rlm-root-models', `rlm-sub-models' and
`rlm-limits'; :fresh non-nil takes nothing from the cache; :private
non-nil lets the texts go to trusted hosts only; :confirm \"accept\"
does not ask before what may take long, \"refuse\" does not do it."
  :type '(alist :key-type (string :tag "Name")
                :value-type (plist :tag "Choices"
                                   :options ((:strategy string) (:root (repeat string))
                                             (:sub (repeat string)) (:limits plist)
                                             (:fresh boolean) (:private boolean)
                                             (:confirm (choice (const "ask") (const "accept")
                                                               (const "refuse"))))))
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

(defcustom rlm-profile nil
  "The name of the profile, of `rlm-profiles', that questions are asked with.
Where it is buffer-local it is for questions from that buffer."
  :type '(choice (const :tag "None" nil) string)
  :safe #'string-or-null-p
  :group 'rlm
  :package-version '(rlm . "0.1.0"))

;;;; What they come to

(defconst rlm--strategies
  '(("auto" . "the daemon chooses by the size of the text")
    ("direct" . "one completion over the whole text")
    ("rlm" . "a model that writes programs")
    ("map" . "the question to each piece, then combine")
    ("quote" . "search and quote, no model"))
  "The strategies that every daemon has, and what they are.")

(defvar rlm--choices nil
  "Keyword arguments for `rlm-query' that the menu has chosen.")

(defconst rlm--choice-options
  '((:strategy . rlm-strategy) (:root . rlm-root-models) (:sub . rlm-sub-models)
    (:limits . rlm-limits))
  "The options that say what nobody else does.")

(defun rlm--profile (name)
  "Return the choices of the profile NAME, a plist; nil for nil."
  (when name
    (cdr (or (assoc name rlm-profiles)
             (user-error "There is no profile %s; `rlm-profiles' has %s" name
                         (string-join (mapcar #'car rlm-profiles) ", "))))))

(defun rlm--choices-with (given)
  "Return all that is chosen: GIVEN, a plist of what was asked for, comes first.
Each of the limits is a choice by itself."
  (let* ((profile (rlm--profile (or (plist-get given :profile)
                                    (plist-get rlm--choices :profile)
                                    rlm-profile)))
         (sources (list given rlm--choices profile
                        (mapcan (lambda (pair) (list (car pair) (symbol-value (cdr pair))))
                                (copy-sequence rlm--choice-options))))
         (limits (rlm--first-of-each
                  (mapcar (lambda (source) (plist-get source :limits)) sources))))
    (append (when limits (list :limits limits))
            (rlm--first-of-each sources))))

(defun rlm--first-of-each (plists)
  "Return a plist that has the first non-nil value of each key in PLISTS."
  (let (found)
    (dolist (plist plists)
      (while plist
        (when (and (cadr plist) (null (plist-get found (car plist))))
          (setq found (plist-put found (car plist) (cadr plist))))
        (setq plist (cddr plist))))
    found))

(defun rlm--params (chosen)
  "Return what run/start is given for CHOSEN, of `rlm--choices-with'."
  (let ((models (lambda (key)
                  (when-let ((models (plist-get chosen key)))
                    (list key (vconcat (ensure-list models)))))))
    (append (list :strategy (plist-get chosen :strategy))
            (funcall models :root)
            (funcall models :sub)
            (mapcan (lambda (key)
                      (when-let ((value (plist-get chosen key)))
                        (list key value)))
                    (list :limits :session :confirm))
            (when (plist-get chosen :fresh) (list :fresh t)))))

(provide 'rlm-choice)
;;; rlm-choice.el ends here
